"""Metrics of background tasks, which come and go with the nodes."""

from __future__ import annotations

from prometheus_client.exposition import generate_latest

from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.service.metrics import Metrics


def read(metrics: Metrics, *tasks: TaskStatus) -> list[str]:
    """Return the lines about tasks after one request for the metrics."""
    metrics._gauges._read_tasks(tasks)
    lines = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith("herdbook_task_")]


def test_tasks_of_a_node_that_was_added_again_are_counted_on() -> None:
    metrics, name = Metrics(":memory:"), "reconciler/gpu1"
    restarts = 'herdbook_task_restarts_total{task="reconciler/gpu1"}'
    assert f"{restarts} 3.0" in read(metrics, TaskStatus(name=name, restarts=3))

    removed = read(metrics)
    again = read(metrics, TaskStatus(name=name, restarts=1))

    assert not any(line.startswith("herdbook_task_up{") for line in removed)
    assert f"{restarts} 4.0" in again
    assert f"{restarts} 5.0" in read(metrics, TaskStatus(name=name, restarts=2))
