"""Several nodes over HTTP: manage them, and ask for all of them or for one."""

from __future__ import annotations

import os
from socket import gethostname

from support.cli_runner import SandboxThread
from support.service_program import RunningService
from support.waiting import wait_until

SHARED = "gemma3:4b"
NEW = "llama3.2:1b"
PATHS = (
    *("", "/history", "/why", "/statistics", "/configuration"),
    *("/cost?of=unload", "/cost?of=load"),
)


def test_nodes_are_listed_changed_and_removed(
    herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> None:
    listed = herdbook.get("/v1/nodes")
    assert [one["name"] for one in listed] == ["gpu1", "gpu2", "local"]
    assert listed[0]["models"] == listed[2]["models"] > 2
    assert listed[0]["settings"]["weight"] == 2

    drained = herdbook.http.put("/v1/nodes/gpu1", json={"settings": {"drained": True}})
    assert drained.json()["settings"]["drained"] is True
    same = {**herdbook.get("/v1/nodes/gpu1"), "reconciler": None}
    assert same == {**drained.json(), "reconciler": None}
    again = herdbook.http.post(
        "/v1/nodes", json={"name": "gpu1", "url": fleet["gpu1"].address}
    )
    assert again.status_code == 400
    wrong = {"name": "gpu3", "url": "x", "wieght": 1}
    assert herdbook.http.post("/v1/nodes", json=wrong).status_code == 400
    removed = herdbook.http.delete("/v1/nodes/gpu1")
    assert removed.json()["removed_at"] is not None
    assert herdbook.http.get("/v1/nodes/gpu1").status_code == 404
    assert herdbook.http.delete("/v1/nodes/gpu9").status_code == 404
    assert {one["node"] for one in herdbook.get("/v1/models")} == {"local"}
    events = herdbook.get("/v1/events?node=gpu1&newest_first=true")["events"]
    assert events[0]["type"] == "NodeRemoved"
    assert herdbook.get("/v1/operations?node=gpu1") == []


def test_lists_are_of_all_nodes_or_of_one(
    herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> None:
    herdbook.operate("load", SHARED, node="gpu1")

    assert {one["node"] for one in herdbook.get("/v1/models")} == {"gpu1", "local"}
    events = herdbook.get("/v1/events?node=gpu1&limit=1000")["events"]
    assert "node/gpu1" in {one["stream"] for one in events}
    assert all(one["stream"].split("/")[1] == "gpu1" for one in events)
    alone = herdbook.get("/v1/models?node=gpu1")
    assert {one["node"] for one in alone} == {"gpu1"}
    assert [one["node"] for one in herdbook.get("/v1/ps")["models"]] == ["gpu1"]
    assert herdbook.get("/v1/ps?node=local")["models"] == []
    status = herdbook.get("/v1/status")
    assert [one["name"] for one in status["nodes"]] == ["gpu1", "gpu2", "local"]
    assert status["recommended"]["general"]["node"] in ("gpu1", "local")
    assert herdbook.get("/v1/status?node=gpu2")["node"]["name"] == "gpu2"
    chosen = herdbook.get("/v1/roles/general")["chosen"]
    assert (chosen[0]["node"], chosen[0]["name"]) == ("gpu1", SHARED)
    only = herdbook.get("/v1/roles/general?node=local")["chosen"]
    assert {one["node"] for one in only} == {"local"}
    assert herdbook.get("/v1/roles?node=gpu2")[0]["chosen"] == []
    assert herdbook.get("/v1/usage?node=gpu1")["total"]["requests"] == 0
    free = herdbook.http.get("/v1/free?bytes=1")
    assert (free.status_code, free.json()["code"]) == (409, "ambiguous_node")
    assert "local (frees " in free.json()["detail"]
    assert "gpu2 (nothing can be freed)" in free.json()["detail"]
    assert herdbook.get("/v1/free?bytes=1&node=local")["chosen"]
    assert herdbook.http.get("/v1/diff?from=1").status_code == 409
    assert herdbook.get("/v1/diff?from=1&node=gpu1")["models"]
    events = herdbook.get("/v1/events?stream_prefix=model/gpu1/")["events"]
    assert {one["node"] for one in events} == {"gpu1"}
    for path in ("events", "events/stream", "operations", "models", "usage"):
        unknown = herdbook.http.get(f"/v1/{path}?node=gpu3")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_node")


def test_a_model_of_several_nodes_needs_one(
    herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> None:
    for path in PATHS:
        address = f"/v1/models/{SHARED}{path}"

        refused = herdbook.http.get(address)

        assert (refused.status_code, refused.json()["code"]) == (409, "ambiguous_node")
        node = f"{'&' if '?' in path else '?'}node=gpu1"
        assert herdbook.http.get(f"{address}{node}").status_code == 200, path
        unknown = node.replace("gpu1", "gpu3")
        assert herdbook.http.get(f"{address}{unknown}").status_code == 404, path


def test_operations_run_on_the_intended_node(
    herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> None:
    refused = herdbook.http.post(
        "/v1/operations", json={"kind": "load", "model": SHARED}
    )
    assert refused.status_code == 409
    pulled = herdbook.operate("pull", NEW, node="gpu2")
    assert (pulled["node"], pulled["state"]) == ("gpu2", "succeeded")
    loaded = herdbook.operate("load", NEW)
    assert loaded["node"] == "gpu2", "the only node that has it"
    both = [herdbook.operate("load", SHARED, node=name) for name in ("gpu1", "local")]
    assert len({one["id"] for one in both}) == 2
    assert {one["node"] for one in herdbook.get("/v1/operations?node=gpu1")} == {"gpu1"}
    herdbook.http.post(f"/v1/models/{NEW}/uses")
    assert herdbook.get("/v1/usage?by=node")["rows"][0]["group"] == {"node": "gpu2"}
    gone = herdbook.http.delete(f"/v1/models/{NEW}")
    assert gone.json()["node"] == "gpu2"
    changed = herdbook.http.put(
        f"/v1/models/{SHARED}/configuration?node=gpu1",
        json={"settings": {"num_ctx": 2048}},
        headers={"if-match": "*"},
    )
    assert changed.status_code == 200
    there = herdbook.get(f"/v1/models/{SHARED}/configuration?node=local")
    assert there["settings"] == {}


def test_a_lost_node_affects_only_its_own_models(
    herdbook: RunningService, fleet: dict[str, SandboxThread]
) -> None:
    wait_until(lambda: "gpu1" in herdbook.get("/readyz")["refreshes"])
    place = {"host": gethostname(), "process": os.getpid()}
    reconciler = herdbook.get("/v1/nodes/gpu1")["reconciler"]
    assert reconciler.items() >= place.items()
    metrics = herdbook.http.get("/metrics").text
    assert 'herdbook_node_refreshed_here{node="gpu1"} 1.0' in metrics
    fleet["gpu1"].close()
    herdbook.operate("refresh", node="gpu1")

    wait_until(lambda: herdbook.get("/readyz")["lost"] == ["gpu1"])

    stale = {
        one["node"]: bool(one["stale_since"]) for one in herdbook.get("/v1/models")
    }
    assert stale == {"gpu1": True, "local": False}
    assert herdbook.get("/readyz")["status"] == "ok"
    metrics = herdbook.http.get("/metrics").text
    assert 'herdbook_node_up{node="gpu1"} 0.0' in metrics
    assert 'herdbook_node_up{node="local"} 1.0' in metrics
    assert 'herdbook_node_models{node="local",state="available"}' in metrics
    herdbook.http.delete("/v1/nodes/gpu1")
    assert 'node="gpu1"' not in herdbook.http.get("/metrics").text
