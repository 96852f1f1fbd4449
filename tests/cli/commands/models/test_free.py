"""The verb free."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

pytestmark = pytest.mark.usefixtures("server")


def test_free_proposes_and_deletes_nothing(herdbook: Herdbook) -> None:
    before = herdbook("ls", "--json").json

    answer = herdbook("free", "1MB")

    assert answer.code == 0
    assert "Add --yes to delete these models" in answer.out
    assert [one["name"] for one in herdbook("ls", "--json").json] == [
        one["name"] for one in before
    ]


def test_free_deletes_the_proposal(herdbook: Herdbook) -> None:
    proposal = herdbook("free", "1MB", "--json").json
    wanted = [step["name"] for group in proposal["chosen"] for step in group["steps"]]

    answer = herdbook("free", "1MB", "--yes", "--json").json

    assert answer["deleted"] == wanted
    left = {one["name"] for one in herdbook("ls", "--json").json}
    assert not left & set(wanted)


def test_free_reads_a_size_with_a_space(herdbook: Herdbook) -> None:
    assert herdbook("free", "1", "MB").out == herdbook("free", "1MB").out


def test_free_reports_if_not_enough_can_be_freed(herdbook: Herdbook) -> None:
    answer = herdbook("free", "900TB")

    assert answer.code == 1
    assert "can be freed" in answer.out


def test_free_with_yes_deletes_nothing_if_it_would_not_be_enough(
    herdbook: Herdbook,
) -> None:
    before = herdbook("ls", "--json").json

    answer = herdbook("free", "900TB", "--yes")

    assert answer.code == 1
    assert len(herdbook("ls", "--json").json) == len(before)
    command = answer.out.rpartition("herdbook ")[2].split()
    assert herdbook(*command).code == 0
    assert len(herdbook("ls", "--json").json) < len(before)


def test_free_reports_a_failed_deletion(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    refuse = {"path": "/api/delete", "status": 500, "body": '{"error": "busy disk"}'}
    server.apply(answer={**refuse, "times": 0})

    answer = herdbook("free", "1MB", "--yes", "--json")

    assert answer.code == 1
    assert answer.json["deleted"] == []
    assert "busy disk" in answer.err


def test_free_refuses_an_invalid_size(herdbook: Herdbook) -> None:
    answer = herdbook("free", "much")

    assert answer.code == 2
    assert "is not a size" in answer.err


def test_free_keeps_a_desired_set(herdbook: Herdbook, tmp_path: Path) -> None:
    proposal = herdbook("free", "1MB", "--json").json
    kept = proposal["chosen"][0]["steps"][0]["name"]
    file = tmp_path / "herd.toml"
    file.write_text(f'[models."{kept}"]\n')

    answer = herdbook("free", "1MB", "--keep", str(file), "--json").json

    names = [
        step["name"]
        for group in (*answer["chosen"], *answer["alternatives"])
        for step in group["steps"]
    ]
    assert names
    assert kept not in names
