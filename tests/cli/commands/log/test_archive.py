"""The command archive, and other commands on a log with an archive."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.archives import LENGTH, fill
from support.cli_runner import Herdbook

from herdbook.events.archive_file import BLOCK

pytestmark = pytest.mark.usefixtures("no_server")

BEFORE = ("archive", "--before", f"#{2 * BLOCK + 5}")


@pytest.fixture
def file(log: Path) -> Path:
    asyncio.run(fill(log))
    return log.with_name(f"herd-archive-1-{2 * BLOCK}.jsonl.gz")


def test_archive_is_planned_made_signed_and_not_made_twice(
    herdbook: Herdbook, file: Path, tmp_path: Path
) -> None:
    herdbook("key", "new", str(tmp_path / "key.pem"), "--name", "alice")
    planned = herdbook(*BEFORE, "--dry-run")
    assert planned.out == f"would write {file}: 2,048 events from #1 to #2048\n"
    assert not file.exists()

    made = herdbook(*BEFORE, "--key", str(tmp_path / "key.pem"), "--json").json
    assert (made["path"], made["made"], made["events"]) == (str(file), True, 2 * BLOCK)
    assert made["size_bytes"] == file.stat().st_size
    again = herdbook("archive", "--before", "1d")
    assert again.code == 0
    assert again.out.startswith("Nothing to archive: 302 events")

    verified = herdbook("verify", "--key", str(tmp_path / "key.pem.pub"))
    assert verified.code == 0
    assert "2,351 events, chain intact from #1 to #2351" in verified.out
    listed = herdbook("log", "--json", "--limit", "3000", "--no-refresh").json
    assert len(listed) == LENGTH + 1
    copied = herdbook("backup", str(tmp_path / "copy.db"))
    assert (
        f"The backup does not include the archives. Copy them too: {file.name}"
        in copied.out
    )


def test_log_without_its_archive_says_what_it_cannot_show(
    herdbook: Herdbook, file: Path, tmp_path: Path
) -> None:
    herdbook(*BEFORE)
    herdbook("backup", str(tmp_path / "copy.db"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    damaged = herdbook("log", "--limit", "3000", "--no-refresh")
    assert "is damaged" in damaged.err
    assert damaged.err.endswith("Replace it with a copy of the same archive.\n")
    file.unlink()
    missing = f"archive {file.name} with the events #1 to #2048 is missing"

    newest = herdbook("log", "--limit", "3000", "--no-refresh")
    assert newest.code == 0
    assert len(newest.out.splitlines()) == LENGTH + 1 - 2 * BLOCK
    assert missing in newest.err
    assert newest.err.endswith("or set HERDBOOK_ARCHIVES to its directory.\n")
    history = herdbook("history", "m1", "--no-refresh")
    assert history.code == 0
    assert "ConfigurationChanged" not in history.err
    assert missing in history.err
    verified = herdbook("verify")
    assert verified.code == 0
    assert f"not verified: {missing}" in verified.out
    restored = herdbook("restore", str(tmp_path / "copy.db"), "--replace")
    assert restored.code == 0
    assert missing in restored.out
    for words in (("as-of", "#100"), ("log", "--after", "0"), ("export", "all.jsonl")):
        refused = herdbook(*words)
        assert refused.code == 1
        assert missing in refused.err
        assert "HERDBOOK_ARCHIVES" in refused.err
    for answered in (("as-of", "#2100"), ("ls",), ("show", "m1"), ("usage",)):
        assert herdbook(*answered).code == 0, answered


def test_export_and_import_of_an_archived_log_keep_everything(
    herdbook: Herdbook, file: Path, tmp_path: Path
) -> None:
    assert herdbook(*BEFORE).code == 0
    assert file.exists()
    exported = tmp_path / "all.jsonl"
    assert herdbook("export", str(exported)).code == 0
    whole = ("--db", str(tmp_path / "whole.db"))

    assert herdbook("import", str(exported), *whole).code == 0
    heads = [herdbook("verify", "--json", *words).json for words in ((), whole)]
    assert len({each["hash"] for each in heads}) == 1
    assert {each["events"] for each in heads} == {LENGTH + 1}
    copied = ("--db", str(tmp_path / "copied.db"))
    assert herdbook("copy", "--to", copied[1]).code == 0
    assert herdbook("verify", "--json", *copied).json["hash"] == heads[0]["hash"]


def test_log_in_a_database_has_no_archives(herdbook: Herdbook) -> None:
    refused = herdbook(
        "archive", "--before", "90d", "--db", "postgresql://localhost/x", "--json"
    )
    assert refused.code == 2
    assert "only a log in a SQLite file can have archives" in refused.err
    assert "herdbook export" in json.loads(refused.err)["remedy"]
