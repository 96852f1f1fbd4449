"""Every command of the guide to several servers works, in its order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread
from support.postgres.fixture import with_schema

from herdbook.core.fleet.nodes_file import read
from herdbook.events.postgres.address import PostgresAddress

GUIDE = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
FILES, _, DATABASE = GUIDE.partition("## Several services, on PostgreSQL")
COMMANDS = re.findall(r"^\$ herdbook (.+)$", FILES, re.MULTILINE)
FILE = re.search(r"^```toml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("server")
def test_every_command_of_the_guide_works(
    herdbook: Herdbook,
    serving: Callable[..., SandboxThread],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = {f"http://gpu{n}:11434": serving().address for n in (1, 2)}
    assert FILE is not None
    monkeypatch.chdir(tmp_path)
    Path("nodes.toml").write_text(with_addresses(FILE[1], addresses))

    assert len(COMMANDS) > 20
    for command in COMMANDS:
        answer = herdbook(*shlex.split(with_addresses(command, addresses)))
        assert answer.code == 0, (command, answer)

    assert [one["name"] for one in herdbook("node", "list", "--json").json] == [
        *("gpu1", "gpu2", "local")
    ]


def test_every_command_on_postgresql_works(
    herdbook: Herdbook,
    server: SandboxThread,
    address: PostgresAddress,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    herdbook("refresh")
    monkeypatch.chdir(tmp_path)  # where the log is, as herd.db
    database = with_schema(address.url, address.schema)
    examples = {
        "http://desk:11434": server.address,
        "postgresql://herdbook@db.example.org/herd": database,
    }
    commands = re.findall(r"^\$ (.+)$", DATABASE, re.MULTILINE)
    for command in commands:
        program, *words = shlex.split(with_addresses(command, examples))
        if program == "export":
            name, _, value = words[0].partition("=")
            monkeypatch.setenv(name, value)
        elif words[0] == "serve":  # tests/cli/commands/servers runs these
            assert words[1] == "--port"
        else:
            answer = herdbook(*words)
            assert answer.code == 0, (command, answer)

    assert [one["name"] for one in herdbook("node", "list", "--json").json] == ["local"]
    assert len(herdbook("ls", "--json").json) > 1


def test_the_services_of_the_guide_are_run_by_other_tests() -> None:
    served = re.findall(r"^(?:\$ )?herdbook serve(.*)$", GUIDE, re.MULTILINE)

    assert served == [
        " --gateway 127.0.0.1:11436",  # commands/servers/test_gateway.py
        " --port 11435",  # both: commands/servers/test_two_services.py
        " --port 11445",
    ]


def with_addresses(text: str, addresses: dict[str, str]) -> str:
    """Return a text with the addresses of servers in place of the examples."""
    for example, address in addresses.items():
        text = text.replace(example, address)
    return text


def test_the_shown_error_is_that_of_the_command(
    herdbook: Herdbook, server: SandboxThread, serving: Callable[..., SandboxThread]
) -> None:
    herdbook("pull", "llama3.2:1b")
    herdbook("node", "add", "gpu1", serving().address)
    herdbook("pull", "llama3.2:1b", "--node", "gpu1")

    refused = herdbook("load", "llama3.2:1b")

    assert refused.err in GUIDE


def test_the_guide_has_every_key_of_a_file(tmp_path: Path) -> None:
    assert FILE is not None
    path = tmp_path / "nodes.toml"
    path.write_text(FILE[1])

    assert [one.name for one in read(path)] == ["gpu1", "gpu2"]
    keys = set(re.findall(r"^\| `([a-z_]+)` \|", GUIDE, re.MULTILINE))
    assert keys == {
        *("url", "key_env", "tags", "weight", "models", "prefer", "max_model"),
        "drained",
    }
