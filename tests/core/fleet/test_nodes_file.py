"""The nodes that a log should have, read from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fleet_fixture import serve_fleet, serve_sandboxes

from herdbook.core import CallerError
from herdbook.core.fleet import nodes_file
from herdbook.core.fleet.nodes_file import NodeAction
from herdbook.events.facts import NodeSettings

FILE = """
[nodes.gpu1]
url = "gpu1"
key_env = "GPU1_KEY"
tags = {ram = "64GB"}
weight = 2
models = ["qwen*"]
prefer = ["*coder*"]
max_model = "40GB"

[nodes.cpu]
url = "https://cpu.example.org"
drained = true
"""


def test_file_has_every_setting_of_its_nodes(tmp_path: Path) -> None:
    path = tmp_path / "nodes.toml"
    path.write_text(FILE)

    cpu, gpu = nodes_file.read(path)

    assert (cpu.name, cpu.url) == ("cpu", "https://cpu.example.org:443")
    assert cpu.settings == NodeSettings(drained=True)
    assert (gpu.name, gpu.url) == ("gpu1", "http://gpu1:11434")
    assert gpu.settings == NodeSettings(
        key_env="GPU1_KEY",
        tags={"ram": "64GB"},
        weight=2.0,
        models=("qwen*",),
        prefer=("*coder*",),
        max_model_bytes=40_000_000_000,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no node"),
        ("[node.a]\nurl='a'", r"unknown table \[node\]\. Did you mean 'nodes'"),
        ("[nodes.a]", "key 'url' of node 'a' is missing"),
        ("[nodes]\na = 1", "node 'a' must be a table"),
        ("[nodes.a]\nurl='a'\nwieght=1", "Did you mean 'weight'"),
        ("[nodes.a]\nurl='a'\nweight=true", "'weight' of node 'a' must be a number"),
        ("[nodes.a]\nurl='a'\nweight=-1", "node 'a'"),
        ("[nodes.a]\nurl='a'\ntags={ram=64}", "node 'a' has invalid settings"),
        ("[nodes.a]\nurl='ftp://a'", "url 'ftp://a' of node 'a' is not a valid"),
        ("[nodes.a]\nurl='a'\nmax_model='big'", "must be a size"),
        ("[nodes.a]\nurl='http://me:pw@a'", "contains a user or a password"),
        ("[nodes.'a/b']\nurl='a'", "node name 'a/b' is not valid"),
        ("[nodes", "is not TOML"),
    ],
)
def test_invalid_file_is_refused_with_the_mistake(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "nodes.toml"
    path.write_text(text)
    with pytest.raises(CallerError, match=says) as caught:
        nodes_file.read(path)
    assert str(path) in str(caught.value)
    assert "pw" not in str(caught.value)


async def test_steps_lead_from_the_log_to_the_file_and_are_then_empty() -> None:
    async with (
        serve_sandboxes(local="none", a="none", b="none", c="none") as servers,
        servers.open_fleet() as fleet,
    ):
        await fleet.add("a", servers["a"].url)
        await fleet.add("b", servers["b"].url)
        desired = nodes_file.parse(
            {
                "nodes": {
                    "a": {"url": servers["a"].url, "weight": 3},
                    "c": {"url": servers["c"].url},
                    "local": {"url": servers["local"].url},
                }
            }
        )

        planned = nodes_file.steps(desired, await fleet.nodes(), prune=True)
        assert [(step.action, step.node) for step in planned] == [
            (NodeAction.CONFIGURE, "a"),
            (NodeAction.ADD, "c"),
            (NodeAction.ADD, "local"),
            (NodeAction.REMOVE, "b"),
        ]
        for step in planned:
            await fleet.apply(step)

        assert fleet.names == ["a", "c", "local"]
        assert nodes_file.steps(desired, await fleet.nodes(), prune=True) == []


async def test_nodes_exchange_their_addresses_or_get_another_name() -> None:
    async with serve_fleet(local="none", a="none", b="none") as (servers, fleet):
        old, new = servers["a"].url, servers["b"].url
        for names, url_of, gone in (
            ("ab", {"a": new, "b": old}, set()),
            ("bc", {"b": old, "c": new}, {"a"}),
        ):
            desired = nodes_file.parse(
                {"nodes": {name: {"url": url_of[name]} for name in names}}
            )
            if gone:
                with pytest.raises(CallerError, match="nodes 'a' and 'c'"):
                    nodes_file.steps(desired, await fleet.nodes(), prune=False)
            for step in nodes_file.steps(desired, await fleet.nodes(), prune=True):
                await fleet.apply(step)
            found = {node.name: node.url for node in await fleet.nodes()}
            assert found == {**url_of, "local": servers["local"].url}


def test_file_with_one_server_twice_is_refused() -> None:
    twice = {"a": {"url": "http://gpu:1"}, "b": {"url": "HTTP://GPU.:1/"}}
    desired = nodes_file.parse({"nodes": twice})
    with pytest.raises(CallerError, match="would be the address of the nodes"):
        nodes_file.steps(desired, [], prune=False)
