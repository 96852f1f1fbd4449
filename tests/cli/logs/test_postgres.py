"""The command on a log in a PostgreSQL database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.cli_runner import Herdbook, SandboxThread
from support.postgres.fixture import with_schema

from herdbook.cli.completion import complete_model
from herdbook.events.postgres.address import PostgresAddress

WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None
from herdbook.cli import run
sys.exit(run(sys.argv[1:]))
"""

NAME = "llama3.2:3b"


def full(address: PostgresAddress) -> str:
    """Return an address as a user writes it."""
    return with_schema(address.url, address.schema)


@pytest.fixture
def database(
    log: Path, address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> PostgresAddress:
    """Let HERDBOOK_DB name a database, instead of a file."""
    monkeypatch.setenv("HERDBOOK_DB", full(address))
    return address


def test_verbs_use_the_database(
    herdbook: Herdbook, server: SandboxThread, database: PostgresAddress, log: Path
) -> None:
    assert NAME in herdbook("ls").out
    # The server's clock is fast, and would soon unload it.
    assert herdbook("load", NAME, "--keep-alive", "-1").code == 0
    assert herdbook("use", NAME, "--for", "tests").code == 0
    assert herdbook("config", NAME, "num_ctx=8192").code == 0
    assert herdbook("show", NAME, "--json").json["state"] == "loaded"
    assert herdbook("unload", NAME).code == 0
    types = [event["type"] for event in herdbook("log", "--after", "0", "--json").json]
    assert types[0] == "NodeReached"
    assert {"ModelUsed", "ConfigurationChanged", "ModelUnloaded"} <= {*types}
    assert herdbook("history", NAME).code == 0
    assert herdbook("diff", "#1").code == 0
    verified = herdbook("verify", "--json")
    assert verified.json["events"] == len(types)
    assert verified.json["findings"] == []
    assert herdbook("anchor").code == 0
    assert complete_model("llama") == [NAME]
    assert not log.exists()


def test_doctor_checks_the_database(
    herdbook: Herdbook, server: SandboxThread, database: PostgresAddress
) -> None:
    absent = {each["check"]: each for each in herdbook("doctor", "--json").json}
    herdbook("ls")
    found = {each["check"]: each for each in herdbook("doctor", "--json").json}

    assert absent["log"]["level"] == "notice"
    assert "no log yet" in absent["log"]["what"]
    assert database.schema in found["log"]["what"]
    assert found["database"]["what"].startswith("PostgreSQL 1")
    assert "psycopg" in found["versions"]["what"]
    for check in ("log", "triggers", "head", "clock", "instances", "events"):
        assert found[check]["level"] == "ok", found[check]
    assert not {"sqlite", "pragmas", "wal", "kept_head", "file_system"} & found.keys()


@pytest.mark.parametrize("verb", ["verify", "anchor"])
def test_reading_verbs_create_no_log(
    verb: str, herdbook: Herdbook, database: PostgresAddress
) -> None:
    answer = herdbook(verb)

    assert answer.code == 3
    assert "has no log" in answer.err
    assert complete_model("") == []
    doctor = {each["check"]: each for each in herdbook("doctor", "--json").json}
    assert "no log yet" in doctor["log"]["what"]


def test_database_is_backed_up_to_a_file_and_restored(
    herdbook: Herdbook,
    server: SandboxThread,
    database: PostgresAddress,
    tmp_path: Path,
) -> None:
    file = tmp_path / "backup.db"
    herdbook("ls")
    events = herdbook("verify", "--json").json

    made = herdbook("backup", str(file), "--json").json
    again = herdbook("restore", str(file), "--json").json
    moved = herdbook("restore", str(file), "--db", str(tmp_path / "moved.db"))

    assert (made["position"], made["hash"]) == (events["position"], events["hash"])
    assert again == {
        "path": str(database),
        "position": events["position"],
        "hash": events["hash"],
        "replaced": None,
        "missing": "",
        "findings": [],
    }
    assert moved.code == 0
    assert herdbook("backup", str(file)).code == 2  # it exists
    assert herdbook("restore", str(tmp_path / "none.db")).code == 2
    refused = herdbook("restore", str(file), "--replace")
    assert refused.code == 2
    assert "?schema=" in refused.err
    herdbook("use", NAME)
    herdbook("use", NAME, "--db", str(tmp_path / "moved.db"))
    assert herdbook(
        "backup", str(file), "--replace", "--db", str(tmp_path / "moved.db")
    )
    assert "different history" in herdbook("restore", str(file)).err


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://ann:secret@127.0.0.1:9/herd", "the connection was refused"),
        ("postgresql://ann:secret@herd.invalid/herd", "unknown host name"),
        ("postgresql://ann:sec/ret@db/herd", "is not valid"),
        ("postgresql://ann:secret@db/herd?colour=red", "parameters of libpq"),
    ],
)
@pytest.mark.usefixtures("no_server")
def test_unusable_address_is_one_line_without_the_password(
    url: str, wanted: str, herdbook: Herdbook
) -> None:
    for verb in ("ls", "verify", "doctor"):
        answer = herdbook(verb, "--db", url, "--verbose")

        assert answer.code in {1, 2}
        assert wanted in answer.out + answer.err
        assert "sec" not in (answer.out + answer.err).replace("1 second", "")


@pytest.mark.usefixtures("no_server")
def test_missing_database_and_user_are_named(herdbook: Herdbook, postgres: str) -> None:
    parts = urlsplit(postgres)
    host = parts.netloc.rpartition("@")[2]
    no_database = herdbook("ls", "--db", parts._replace(path="/nowhere").geturl())
    nobody = parts._replace(netloc=f"nobody:secret@{host}").geturl()
    no_user = herdbook("ls", "--db", nobody)

    assert "does not have the database" in no_database.err
    assert "createdb" in no_database.err
    # A server that asks for passwords does not say which of the two is wrong.
    unknown = ("does not know the user", "refuses the user or the password")
    assert any(text in no_user.err for text in unknown)


def test_missing_driver_names_the_extra(database: PostgresAddress) -> None:
    for verb in ("ls", "verify"):
        answer = subprocess.run(
            [sys.executable, "-c", WITHOUT_DRIVER, verb],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 1
        assert "pip install 'herdbook[postgres]'" in answer.stderr


def test_log_is_copied_to_a_database_and_back(
    herdbook: Herdbook,
    server: SandboxThread,
    log: Path,
    address: PostgresAddress,
    tmp_path: Path,
) -> None:
    herdbook("ls")
    url, back = full(address), tmp_path / "back.db"

    there = herdbook("copy", "--to", url)
    again = herdbook("copy", "--from", url, "--to", str(back), "--json")

    head = herdbook("verify", "--json").json
    added, end = f"{head['events']} events copied", f"ends at #{head['position']}"
    assert there.out == f"{address}: {added}; {end}\n"
    assert again.json == {
        "source": str(address),
        "target": str(back),
        "added": head["events"],
        "present": 0,
        "position": head["position"],
        "hash": head["hash"],
    }
    assert herdbook("verify", "--db", url, "--json").json["hash"] == head["hash"]
    herdbook("use", NAME, "--db", url)
    herdbook("use", NAME)
    fork = herdbook("copy", "--to", url)
    assert fork.code == 1
    assert f"different history than the log from #{head['position'] + 1}" in fork.err
    missing = herdbook("copy", "--from", str(tmp_path / "none.db"), "--to", url)
    assert missing.code == 3
