"""Several nodes in one log: add, list, change and remove them; verbs on all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli.completion import complete_node

SHARED = "llama3.2:3b"
NEW = "llama3.2:1b"


class Nodes:
    """Three servers: ``local`` and ``gpu1`` have the same models, ``gpu2`` has none."""

    def __init__(
        self, local: SandboxThread, gpu1: SandboxThread, gpu2: SandboxThread
    ) -> None:
        self.local = local
        self.gpu1 = gpu1
        self.gpu2 = gpu2


@pytest.fixture
def nodes(
    herdbook: Herdbook, server: SandboxThread, serving: Callable[..., SandboxThread]
) -> Nodes:
    """Return three servers that the log manages."""
    found = Nodes(server, serving(), serving(models="none"))
    herdbook("refresh")
    added = herdbook("node", "add", "gpu1", found.gpu1.address, "--tag", "vram=24GB")
    assert added.code == 0
    assert "gpu1 added (Ollama " in added.out
    assert "5 models" in added.out
    assert herdbook("node", "add", "gpu2", found.gpu2.address).code == 0
    return found


def test_the_list_has_each_node_with_its_models(
    herdbook: Herdbook, nodes: Nodes
) -> None:
    listed = herdbook("node", "list", "--json").json

    assert [one["name"] for one in listed] == ["gpu1", "gpu2", "local"]
    assert [one["models"] for one in listed] == [5, 0, 5]
    assert listed[0]["url"] == nodes.gpu1.address
    assert listed[0]["settings"]["tags"] == {"vram": "24GB"}
    assert herdbook("node", "--json").json == listed
    shown = herdbook("node").out
    assert shown == herdbook("node", "list").out
    assert shown.splitlines()[0].split()[:3] == ["NODE", "STATE", "ADDRESS"]
    assert "vram 24GB" in shown


def test_ls_shows_the_models_of_all_nodes_or_of_one(
    herdbook: Herdbook, nodes: Nodes
) -> None:
    lines = herdbook("ls").out.splitlines()

    assert lines[0].split()[:2] == ["MODEL", "NODE"]
    assert sum(line.startswith(SHARED) for line in lines) == 2
    assert lines[-1].startswith("3 nodes · 10 models")
    assert {one["node"] for one in herdbook("ls", "--json").json} == {"gpu1", "local"}
    alone = herdbook("ls", "--node", "gpu1").out
    assert "NODE" not in alone
    assert alone.splitlines()[-1].startswith("gpu1 · Ollama")
    assert {one["node"] for one in herdbook("ls", "--json", "--node", "gpu1").json} == {
        "gpu1"
    }


@pytest.mark.parametrize("verb", ["load", "unload", "show", "why", "config", "history"])
def test_a_model_on_several_nodes_needs_one_to_be_named(
    herdbook: Herdbook, nodes: Nodes, verb: str
) -> None:
    refused = herdbook(verb, SHARED)

    assert refused.code == 2
    assert f"{SHARED} is on several nodes: gpu1, local" in refused.err
    assert f"herdbook {verb} {SHARED} --node gpu1" in refused.err
    assert herdbook(verb, SHARED, "--node", "gpu1").code == 0


def test_a_verb_uses_the_only_node_that_has_the_model(
    herdbook: Herdbook, nodes: Nodes
) -> None:
    pulled = herdbook("pull", NEW, "--node", "gpu2")
    assert pulled.code == 0

    loaded = herdbook("load", NEW)

    assert loaded.code == 0
    assert f"{NEW} on gpu2 loaded" in loaded.out
    lines = herdbook("ps").out.splitlines()
    assert lines[0].split()[:2] == ["MODEL", "NODE"]
    assert lines[1].split()[:2] == [NEW, "gpu2"]
    (one,) = herdbook("ps", "--json").json["models"]
    assert one["node"] == "gpu2"
    assert herdbook("unload", NEW, "--json").json["node"] == "gpu2"
    assert herdbook("rm", NEW, "--yes").out.startswith(f"{NEW} on gpu2 deleted")
    unknown = herdbook("load", "no-such-model")
    assert unknown.code == 3
    assert "any node" in unknown.err


def test_a_pull_goes_to_a_node_with_room(herdbook: Herdbook, nodes: Nodes) -> None:
    pulled = herdbook("pull", NEW)

    assert pulled.code == 0
    assert f"Node for {NEW}: gpu1" in pulled.out, "its memory is known"
    again = herdbook("pull", NEW)
    assert f"Node for {NEW}: gpu1" in again.out, "it is there already"
    failed = herdbook("pull", "no-such:1b", "no-such:2b", "--json").out.splitlines()
    errors = [one for one in map(json.loads, failed) if "error" in one]
    assert [one["name"] for one in errors] == ["no-such:1b", "no-such:2b"]
    assert all(one["node"] in {"gpu1", "gpu2", "local"} for one in errors)
    for node in ("gpu1", "gpu2", "local"):
        herdbook("node", "drain", node)
    refused = herdbook("pull", "all-minilm:22m")
    assert refused.code == 2
    assert "gpu2 is drained" in refused.err


def test_a_lost_node_affects_only_its_own_models(
    herdbook: Herdbook, nodes: Nodes
) -> None:
    nodes.gpu1.close()

    listed = herdbook("ls", "--json")

    assert listed.code == 0
    stale = {one["node"]: one["stale_since"] is not None for one in listed.json}
    assert stale == {"gpu1": True, "local": False}
    lines = herdbook("ls", "--no-refresh").out.splitlines()
    assert lines[-2].startswith("gpu1 · ")
    assert "stale since" in lines[-2]
    refreshed = herdbook("refresh")
    assert refreshed.code == 5
    assert "local: Ollama" in refreshed.out
    checked = herdbook("doctor", "--json")
    assert checked.code == 1
    levels = {(one.get("node"), one["check"]): one["level"] for one in checked.json}
    assert levels["gpu1", "server"] == "problem"
    assert levels["local", "server"] == "ok"


def test_settings_of_a_node_are_changed_one_by_one(
    herdbook: Herdbook, nodes: Nodes
) -> None:
    changed = herdbook(
        *("node", "configure", "gpu1", "--weight", "2", "--models", "qwen*"),
        *("--tag", "ram=64GB", "--max-model", "40GB", "--prefer", "qwen3*"),
        *("--key-env", "GPU1_KEY", "--json"),
    ).json
    assert changed["settings"] == {
        "key_env": "GPU1_KEY",
        "tags": {"vram": "24GB", "ram": "64GB"},
        "weight": 2.0,
        "models": ["qwen*"],
        "prefer": ["qwen3*"],
        "max_model_bytes": 40_000_000_000,
        "drained": False,
    }
    unset = ("key_env", "tags.vram", "models", "prefer", "max_model", "weight")
    options = [word for name in unset for word in ("--unset", name)]
    shown = herdbook("node", "configure", "gpu1", *options)
    assert shown.out.splitlines()[1].split() == ["tags.ram", "64GB"]
    assert len(shown.out.splitlines()) == 2
    wrong = herdbook("node", "configure", "gpu1", "--unset", "wieght")
    assert wrong.code == 2
    assert "Did you mean 'weight'?" in wrong.err
    unknown = herdbook("node", "drain", "gpu3")
    assert unknown.code == 2
    assert "Did you mean" in unknown.err
    assert herdbook("node", "add", "gpu9", "http://x", "--tag", "ram").code == 2
    odd = herdbook("node", "add", "gpu9", "http://x", "--tag", "ram=much")
    assert (odd.code, "not a size such as '24GB'" in odd.err) == (2, True)


def test_a_drained_node_is_recommended_no_more(
    herdbook: Herdbook, nodes: Nodes
) -> None:
    first = herdbook("recommend", "general", "--json").json["chosen"]
    assert {one["node"] for one in first} == {"gpu1", "local"}

    drained = herdbook("node", "drain", "gpu1")

    assert drained.out == "gpu1 is drained\n"
    assert herdbook("node", "drain", "gpu1").out == "gpu1 is already drained\n"
    answer = herdbook("recommend", "general", "--json").json
    assert {one["node"] for one in answer["chosen"]} == {"local"}
    reasons = [one["reasons"] for one in answer["passed_over"] if one["node"] == "gpu1"]
    assert ["gpu1 is drained"] in reasons
    assert "local" in herdbook("recommend").out
    assert herdbook("node", "undrain", "gpu1").out == "gpu1 is no longer drained\n"


def test_a_node_is_removed_and_its_past_stays(herdbook: Herdbook, nodes: Nodes) -> None:
    removed = herdbook("node", "remove", "gpu1")

    assert removed.code == 0
    assert nodes.gpu1.address in removed.out
    assert {one["node"] for one in herdbook("ls", "--json").json} == {"local"}
    assert herdbook("ls", "--node", "gpu1").code == 2
    every = herdbook("node", "list", "--all", "--json").json
    assert {one["name"] for one in every} == {"gpu1", "gpu2", "local"}
    assert "gpu1" in herdbook("history", "--type", "NodeRemoved").out
    assert herdbook("node", "add", "gpu1", nodes.gpu1.address).code == 0


def test_a_moved_node_is_named_with_its_new_address(
    herdbook: Herdbook, nodes: Nodes, serving: Callable[..., SandboxThread]
) -> None:
    other = serving().address

    moved = herdbook("node", "move", "gpu1", other, "--yes", "--json").json

    assert moved["moved"] is True
    assert moved["node"]["url"] == other
    assert moved["node"]["reached"] is True
    assert herdbook("node", "move", "gpu1", other).out.startswith("gpu1: not moved")
    nowhere = "http://127.0.0.1:1"
    lost = herdbook("node", "move", "gpu1", nowhere, "--yes").out
    assert f"gpu1: moved to {nowhere}, but it does not answer: Ollama at " in lost


def test_a_file_describes_the_nodes(
    herdbook: Herdbook, nodes: Nodes, tmp_path: Path
) -> None:
    file = tmp_path / "nodes.toml"
    file.write_text(
        f'[nodes.gpu1]\nurl = "{nodes.gpu1.address}"\nweight = 2\n'
        f'[nodes.gpu3]\nurl = "{nodes.gpu2.address}"\n'
    )

    twice = herdbook("node", "apply", str(file))
    assert twice.code == 2
    assert "would be the address of the nodes 'gpu2' and 'gpu3'" in twice.err
    plan = herdbook("node", "apply", str(file), "--prune", "--dry-run", "--json").json
    assert [(one["step"]["action"], one["step"]["node"]) for one in plan] == [
        ("configure", "gpu1"),
        ("add", "gpu3"),
        ("remove", "gpu2"),
    ]
    assert not any(one["done"] for one in plan)
    assert len(herdbook("node", "list", "--json").json) == 3
    applied = herdbook("node", "apply", str(file), "--prune")
    assert applied.code == 0
    assert "3 changes made" in applied.out
    names = [one["name"] for one in herdbook("node", "list", "--json").json]
    assert names == ["gpu1", "gpu3", "local"]
    assert "Nothing to do" in herdbook("node", "apply", str(file), "--prune").out


def test_nodes_of_a_file_are_asked_at_once(
    herdbook: Herdbook,
    nodes: Nodes,
    serving: Callable[..., SandboxThread],
    tmp_path: Path,
) -> None:
    file = tmp_path / "nodes.toml"
    other = serving().address
    file.write_text(
        f'[nodes.gpu1]\nurl = "{other}"\n'
        f'[nodes.gpu2]\nurl = "{nodes.gpu2.address}"\ndrained = true\n'
        '[nodes.gpu3]\nurl = "http://127.0.0.1:1"\n'
    )

    applied = herdbook("node", "apply", str(file))

    lines = [line.split() for line in applied.out.splitlines()]
    assert ["move", "gpu1", other] in lines
    assert ["configure", "gpu2", "drained"] in lines
    assert "herdbook: warning: gpu3: Ollama at http://127.0.0.1:1" in applied.err
    assert "gpu1" not in applied.err
    reached = {
        one["name"]: one["reached"] for one in herdbook("node", "list", "--json").json
    }
    assert reached == {"gpu1": True, "gpu2": True, "gpu3": False, "local": True}

    file.write_text(f'[nodes.gpu2]\nurl = "{nodes.gpu2.address}"\n')
    back = herdbook("node", "apply", str(file), "--dry-run").out
    assert "configure   gpu2   no settings" in back


def test_the_past_and_the_use_are_those_of_all_nodes(
    herdbook: Herdbook, nodes: Nodes
) -> None:
    before = herdbook("log", "--limit", "1", "--json").json[0]["position"]
    herdbook("use", SHARED, "--node", "gpu1")
    herdbook("use", SHARED, "--node", "local")

    usage = herdbook("usage", "--by", "node", "--json").json
    assert [row["group"]["node"] for row in usage["rows"]] == ["gpu1", "local"]
    assert herdbook("usage", "--node", "gpu1", "--json").json["total"]["requests"] == 1
    then = herdbook("as-of", str(before), "--json").json
    assert [one["name"] for one in then["nodes"]] == ["gpu1", "gpu2", "local"]
    assert len(then["models"]) == 10
    assert "3 nodes" in herdbook("as-of", str(before)).out
    changes = herdbook("diff", str(before), "--json").json["nodes"]
    assert set(changes) == {"gpu1", "gpu2", "local"}
    assert herdbook("diff", "1").out.splitlines()[1].split()[0] == "NODE"
    entries = herdbook("history", "--node", "gpu1", "--json").json
    assert {one["stream"].split("/")[1] for one in entries} == {"gpu1"}
    events = herdbook("log", "--node", "gpu2", "--limit", "2", "--json").json
    assert [one["stream"] for one in events] == ["node/gpu2"] * 2
    after = herdbook("log", "--node", "gpu1", "--after", "1", "--limit", "3", "--json")
    assert len(after.json) == 3


def test_freeing_disk_space_needs_a_node(herdbook: Herdbook, nodes: Nodes) -> None:
    refused = herdbook("free", "1GB")

    assert refused.code == 2
    assert "free needs a node. Choose one: herdbook free 1GB --node " in refused.err
    assert re.search(r"local \(frees [\d.]+ GB, \d+ models?\)", refused.err)
    assert "gpu2 (nothing can be freed)" in refused.err
    assert herdbook("free", "1GB", "--node", "local").code == 0


def test_names_of_nodes_complete(herdbook: Herdbook, nodes: Nodes) -> None:
    assert complete_node("g") == ["gpu1", "gpu2"]


def test_a_node_that_does_not_answer_is_still_added(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("refresh")

    added = herdbook("node", "add", "gpu1", "http://127.0.0.1:9")

    assert added.code == 0
    assert "gpu1 added, but it does not answer: Ollama at " in added.out
    assert "herdbook: warning: gpu1: Ollama at" in herdbook("free", "1GB").err
    with_password = herdbook("node", "add", "gpu2", "http://ann:secret@127.0.0.1:9")
    assert with_password.code == 2
    assert "--key-env" in with_password.err


def test_the_only_node_that_was_added_needs_no_name(
    herdbook: Herdbook, serving: Callable[..., SandboxThread], no_server: None
) -> None:
    herdbook("node", "add", "gpu1", serving().address)

    assert {one["node"] for one in herdbook("ls", "--json").json} == {"gpu1"}
    assert "NODE" not in herdbook("ls").out
    assert herdbook("load", SHARED).code == 0
    assert herdbook("node").out.startswith("Node     gpu1")


def test_desired_set_is_applied_to_the_nodes_that_it_names(
    herdbook: Herdbook, nodes: Nodes, tmp_path: Path
) -> None:
    file = tmp_path / "herd.toml"
    file.write_text(
        f'[models."{NEW}"]\nnodes = ["gpu2"]\n[models."{SHARED}"]\nnum_ctx = 4096\n'
    )

    planned = herdbook("apply", str(file), "--plan").out.splitlines()
    assert [line.split()[:3] for line in planned[:4]] == [
        ["NODE", "STEP", "MODEL"],
        ["gpu1", "configure", SHARED],
        ["gpu2", "pull", NEW],
        ["local", "configure", SHARED],
    ]
    assert planned[5].startswith("gpu2: 1 step")

    nodes.gpu2.apply(registry={"manifest_status": 404})
    stopped = herdbook("apply", str(file)).out
    assert f"gpu2: failed: pull {NEW}" in stopped
    assert f"local: skipped: configure {SHARED}" in stopped
    nodes.gpu2.apply(registry={})

    lines = herdbook("apply", str(file), "--json").out.splitlines()
    assert any('"node":"gpu2"' in line and '"done"' in line for line in lines)
    again = herdbook("apply", str(file)).out
    assert again == f"Nothing to do: the nodes match {file}.\n"
