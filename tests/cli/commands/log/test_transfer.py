"""The commands export and import."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli_runner import Herdbook
from support.log_lines import rows_of

from herdbook.cli.completion import complete_stream
from herdbook.cli.render.counting import count_line


@pytest.fixture
def used(herdbook: Herdbook, server: object) -> None:
    herdbook("ls")
    herdbook("use", herdbook("ls", "--json").json[0]["name"])


@pytest.mark.usefixtures("used")
def test_export_and_import_move_a_whole_log(
    herdbook: Herdbook, log: Path, tmp_path: Path
) -> None:
    file, new = tmp_path / "herd.jsonl", tmp_path / "new.db"

    made = herdbook("export", str(file))
    done = herdbook("import", str(file), "--db", str(new))

    count = len(rows_of(log))
    assert made.out.startswith(f"{file}: {count} events, ")
    assert done.out == f"{new}: {count} events imported; ends at #{count}\n"
    assert rows_of(new) == rows_of(log)
    assert herdbook("verify", "--db", str(new)).code == 0
    again = herdbook("import", str(file), "--db", str(new)).out
    assert f"0 events imported, {count} already there" in again


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_export_and_import_in_a_pipe(
    herdbook: Herdbook,
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pack: Callable[[bytes], bytes],
) -> None:
    lines = herdbook("export").out
    assert all(json.loads(line)["specversion"] == "1.0" for line in lines.splitlines())

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe: Any = io.BufferedReader(Pipe(pack(lines.encode())))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
    done = herdbook("import", "-", "--json", "--db", str(tmp_path / "new.db")).json

    assert (done["added"], done["present"]) == (len(rows_of(log)), 0)
    assert done["hash"] == rows_of(log)[-1][-1]
    assert rows_of(tmp_path / "new.db") == rows_of(log)


@pytest.mark.usefixtures("used")
def test_compressed_export_from_a_file_and_a_named_pipe(
    herdbook: Herdbook, log: Path, tmp_path: Path
) -> None:
    file, pipe = tmp_path / "herd.jsonl.gz", tmp_path / "pipe"
    herdbook("export", str(file))
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=[file.read_bytes()])
    writing.start()

    done = [
        herdbook("import", str(source), "--db", str(tmp_path / f"{source.name}.db"))
        for source in (file, pipe)
    ]

    writing.join()
    assert [answer.err for answer in done] == ["", ""]
    assert rows_of(tmp_path / "pipe.db") == rows_of(log)
    assert rows_of(tmp_path / f"{file.name}.db") == rows_of(log)


@pytest.mark.usefixtures("used")
def test_partial_export_is_checked_against_anchors_and_keys(
    herdbook: Herdbook, tmp_path: Path
) -> None:
    key, stranger = tmp_path / "key.pem", tmp_path / "other.pem"
    herdbook("key", "new", str(key), "--name", "ann")
    herdbook("key", "new", str(stranger), "--name", "bob")
    anchors, file = tmp_path / "anchors.txt", tmp_path / "part.jsonl"
    herdbook("anchor", "--append", str(anchors))
    made = herdbook(
        "export", str(file), "--type", "ModelUsed", "--key", str(key), "--json"
    ).json
    assert made["events"] == 1

    check = ("import", "--check", str(file))
    found = herdbook(*check, "--json", "--anchors", str(anchors)).json
    assert (found["events"], found["complete"]) == (1, False)
    assert found["types"] == ["ModelUsed"]
    assert "— ann " in found["anchor"]
    assert herdbook(*check, "--key", f"{key}.pub").code == 0
    assert herdbook(*check, "--key", f"{stranger}.pub").code == 2
    herdbook("use", herdbook("ls", "--json").json[0]["name"])
    anchors.unlink()
    herdbook("anchor", "--append", str(anchors))
    assert "does not match an anchor" in herdbook(*check, "--anchors", anchors).err


@pytest.mark.usefixtures("used")
def test_refused_import_creates_no_log(herdbook: Herdbook, tmp_path: Path) -> None:
    file, new = tmp_path / "part.jsonl", tmp_path / "new.db"
    stream = complete_stream("model/local/")[0]
    herdbook("export", str(file), "--stream", stream)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(file.read_bytes().replace(b"reconciler", b"nobody"))

    part = herdbook("import", str(file), "--db", str(new))
    broken = herdbook("import", str(damaged), "--db", str(new))
    missing = herdbook("import", str(tmp_path / "none"), "--db", str(new))

    assert (part.code, broken.code, missing.code) == (2, 1, 2)
    assert "add --check" in part.err
    assert "line 2: event #" in broken.err
    assert not new.exists()


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("is_pipe", [False, True])
def test_import_that_begins_later_creates_no_log(
    herdbook: Herdbook, tmp_path: Path, is_pipe: bool
) -> None:
    file, new = tmp_path / "later.jsonl", tmp_path / "new.db"
    herdbook("export", str(file), "--since", "#3")
    lines = file.read_bytes()
    writing = threading.Thread(target=file.write_bytes, args=[lines])
    if is_pipe:
        file.unlink()
        os.mkfifo(file)
        writing.start()

    answer = herdbook("import", str(file), "--db", str(new))

    if is_pipe:
        writing.join()
    assert answer.code == 2
    assert "begins with #3, but the log has no events" in answer.err
    assert not new.exists()


@pytest.mark.usefixtures("used")
def test_range_of_an_export(herdbook: Herdbook, tmp_path: Path) -> None:
    part = herdbook("export", "--since", "#3", "--until", "#5").out.splitlines()
    positions = [json.loads(line)["position"] for line in part[1:-1]]
    assert positions == [3, 4, 5]

    recent = herdbook("export", "--since", "1h ago", "--until", "now").out.splitlines()
    none = herdbook("export", "--until", "1h ago").out.splitlines()
    assert len(recent) > 5
    assert len(none) == 2


@pytest.mark.usefixtures("used")
def test_export_never_replaces_a_file_without_being_asked(
    herdbook: Herdbook, log: Path, tmp_path: Path
) -> None:
    file = tmp_path / "herd.jsonl"
    file.write_text("mine")

    assert herdbook("export", str(file)).code == 2
    assert herdbook("export", str(log), "--replace").code == 2
    assert file.read_text() == "mine"
    assert herdbook("export", str(file), "--replace").code == 0


def test_export_without_a_log_creates_none(herdbook: Herdbook, log: Path) -> None:
    assert herdbook("export").code == 3
    assert not log.exists()


@pytest.mark.parametrize("width", [30, 60, 200])
def test_progress_fits_the_terminal(width: int) -> None:
    line = "".join(piece.text for piece in count_line("Exporting", 5, 20_000, width))

    assert "5 of 20,000 events" in line
    assert len(line) < max(width, 31)
