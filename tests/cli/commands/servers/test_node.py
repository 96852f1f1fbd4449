"""The verb node: what the log is about, and a server that moved."""

from __future__ import annotations

from collections.abc import Callable

from support.cli_runner import Herdbook, SandboxThread

NAME = "llama3.2:3b"


def test_node_shows_the_address(herdbook: Herdbook, server: SandboxThread) -> None:
    herdbook("refresh")

    assert server.address in herdbook("node").out
    answer = herdbook("node", "--json").json
    assert answer["node"]["url"] == server.address
    assert answer["node"]["reached"] is True
    assert answer["moved"] is False


def test_another_server_is_refused_until_the_node_is_moved(
    herdbook: Herdbook, server: SandboxThread, serving: Callable[..., SandboxThread]
) -> None:
    herdbook("refresh")
    events = len(herdbook("log", "--json").out.splitlines())
    other = serving().address

    for verb in ("ls", "refresh", f"show {NAME}", f"load {NAME}", f"rm {NAME} --yes"):
        refused = herdbook(*verb.split(), "--ollama", other)
        assert refused.code == 2, verb
        assert server.address in refused.err
        assert other in refused.err
        assert "--node NAME" in refused.err
    assert len(herdbook("log", "--json").out.splitlines()) == events
    offline = herdbook("history", NAME, "--no-refresh", "--ollama", other)
    assert offline.code == 0
    assert herdbook("verify", "--ollama", other).code == 0
    for verb in ("usage", "history", "log", f"why {NAME}"):
        answer = herdbook(*verb.split(), "--ollama", other)
        assert (answer.code, answer.out == "") == (0, False), verb
        assert f"herdbook: warning: node local has the address {server.address}" in (
            answer.err
        )
    assert len(herdbook("log", "--json").out.splitlines()) == events

    assert herdbook("node", "move", "--ollama", other).code == 2, "it asks first"
    moved = herdbook("node", "move", "--ollama", other, "--yes")
    assert moved.code == 0
    assert other in moved.out
    assert herdbook("ls", "--ollama", other).code == 0
    assert herdbook("ls").code == 2
    assert herdbook("ls", "--ollama", other, "--node", "local").code == 0


def test_unknown_node_is_refused_unless_it_has_a_server_of_its_own(
    herdbook: Herdbook, server: SandboxThread, serving: Callable[..., SandboxThread]
) -> None:
    herdbook("refresh")
    events = len(herdbook("log", "--json").out.splitlines())

    for verb in ("ls", "ls --no-refresh", "history", f"load {NAME}", "refresh"):
        refused = herdbook(*verb.split(), "--node", "gpu9")
        assert refused.code == 2, verb
        assert "'gpu9' is not a node in this log. Nodes: local" in refused.err
    assert "Did you mean 'local'" in herdbook("ls", "--node", "locla").err
    assert len(herdbook("log", "--json").out.splitlines()) == events

    assert herdbook("ls", "--node", "gpu9", "--ollama", serving().address).code == 0


def test_malformed_address_is_an_error_of_every_verb(herdbook: Herdbook) -> None:
    for address in ("http://127.0.0.1:99999", "nonsense://x", "a b"):
        for verb in ("ls", "show llama3.2:3b", "refresh", "doctor", "load llama3.2:3b"):
            answer = herdbook(*verb.split(), "--ollama", address)
            assert answer.code == 2, (verb, address, answer)
            assert "http://host:port" in answer.err
