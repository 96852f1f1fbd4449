"""The commands backup and restore."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread


@pytest.mark.usefixtures("server")
def test_backup_and_restore_move_a_log(herdbook: Herdbook, tmp_path: Path) -> None:
    herdbook("ls")
    backup = tmp_path / "backup.db"

    made = herdbook("backup", str(backup))
    restored = herdbook("restore", str(backup), "--db", str(tmp_path / "new.db"))

    assert made.code == restored.code == 0
    assert made.out.startswith(f"{backup}: ")
    assert "verified" in made.out
    assert "verified" in restored.out
    of_both = [
        herdbook("verify", "--json", "--db", str(path)).json["hash"]
        for path in (tmp_path / "new.db", backup)
    ]
    assert len(set(of_both)) == 1


def test_restore_replaces_a_log_only_if_asked(
    herdbook: Herdbook, server: SandboxThread, log: Path, tmp_path: Path
) -> None:
    assert server.address
    herdbook("ls")
    backup = tmp_path / "backup.db"
    made = herdbook("backup", str(backup), "--json").json
    name = herdbook("ls", "--json").json[0]["name"]
    assert herdbook("use", name).code == 0

    refused = herdbook("restore", str(backup))
    done = herdbook("restore", str(backup), "--replace", "--json")

    assert refused.code == 2
    assert "--replace" in refused.err
    assert (done.json["position"], done.json["hash"]) == (
        made["position"],
        made["hash"],
    )
    assert Path(done.json["replaced"], log.name).exists()


@pytest.mark.usefixtures("server")
def test_backup_without_a_log_creates_none(
    herdbook: Herdbook, log: Path, tmp_path: Path
) -> None:
    answer = herdbook("backup", str(tmp_path / "backup.db"))

    assert answer.code == 3
    assert not log.exists()
