"""Every verb and option is documented in its help and in docs/command-line.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import typer.main
from support.cli_runner import Herdbook

from herdbook.cli.app import app
from herdbook.cli.commands import VERBS, register_all
from herdbook.cli.errors import EXITS, ErrorShape
from herdbook.core import (
    Candidate,
    Figure,
    HistoryEntry,
    LoadCost,
    PullCost,
    RecordedEvent,
    Usage,
    UsageRow,
)
from herdbook.core.desired.desired import DesiredModel, DesiredSet
from herdbook.core.desired.plan import Step
from herdbook.core.diagnosis import Diagnosis
from herdbook.core.fleet.nodes_file import NodeStep
from herdbook.core.history.diff import (
    Change,
    Difference,
    ModelDifference,
    RoleDifference,
)
from herdbook.core.history.explain import ExplanationEvent
from herdbook.events.facts import NodeSettings
from herdbook.presentation import shapes
from herdbook.presentation.loaded_models import LoadedModel, LoadedModels
from herdbook.presentation.nodes import Node

DOCS = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
SECTIONS = dict(
    re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", DOCS, re.MULTILINE | re.DOTALL)
)
GLOBAL = {
    *("--db", "--ollama", "--node", "--catalogue", "--json", "--verbose"),
    *("--help", "-h"),
}
register_all()
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group


def parameters(verb: str) -> list[Any]:
    """Return the parameters of a verb, and of the verbs below it."""
    below = getattr(COMMANDS[verb], "commands", {})
    return [p for each in (COMMANDS[verb], *below.values()) for p in each.params]


def test_every_verb_is_documented() -> None:
    shown = {name for name, command in COMMANDS.items() if not command.hidden}

    assert set(SECTIONS) == set(VERBS) == shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_documented_with_its_verb(verb: str) -> None:
    options = {flag for p in parameters(verb) for flag in p.opts if flag[0] == "-"}

    assert GLOBAL - {"--help", "-h"} <= options
    for option in options - GLOBAL:
        assert f"`{option}" in SECTIONS[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_every_documented_option_exists(verb: str) -> None:
    options = {flag for p in parameters(verb) for flag in p.opts}
    named = set(re.findall(r"^\* `(--[a-z-]+)", SECTIONS[verb], re.MULTILINE))

    assert named <= options


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_has_help(verb: str, herdbook: Herdbook) -> None:
    answer = herdbook(verb, "--help")

    assert answer.code == 0
    assert COMMANDS[verb].help.endswith(".")
    assert all(p.help.endswith((".", "].")) for p in parameters(verb) if p.name)


@pytest.mark.parametrize("option", sorted(GLOBAL - {"-h", "--help"}))
def test_every_global_option_is_documented(option: str) -> None:
    assert f"| `{option}" in DOCS


@pytest.mark.parametrize(
    ("verb", "shape"),
    [
        ("ls", shapes.Model),
        ("ls", shapes.Context),
        ("ps", LoadedModels),
        ("ps", LoadedModel),
        ("recommend", Candidate),
        ("suggest", shapes.Suggested),
        ("usage", Usage),
        ("usage", UsageRow),
        ("refresh", shapes.Refreshed),
        ("node", shapes.Node),
        ("node", shapes.NodeChange),
        ("node", Node),
        ("node", NodeStep),
        ("node", NodeSettings),
        ("graph", shapes.Graph),
        ("pull", shapes.Progress),
        ("pull", PullCost),
        ("pull", Figure),
        ("load", LoadCost),
        ("load", Figure),
        ("unload", shapes.Unloaded),
        ("cancel", shapes.Cancelled),
        ("config", shapes.Config),
        ("rm", shapes.Removed),
        ("history", HistoryEntry),
        ("log", RecordedEvent),
        ("as-of", shapes.AsOf),
        ("as-of", shapes.AsOfNodes),
        ("verify", shapes.Verified),
        ("doctor", Diagnosis),
        ("diff", Difference),
        ("diff", ModelDifference),
        ("diff", RoleDifference),
        ("diff", Change),
        ("why", shapes.Why),
        ("why", ExplanationEvent),
        ("apply", shapes.Applied),
        ("apply", shapes.Planned),
        *(("apply", step) for step in get_args(Step)),
        ("freeze", DesiredSet),
        ("freeze", DesiredModel),
    ],
)
def test_every_field_of_an_answer_is_documented(
    verb: str, shape: type[msgspec.Struct]
) -> None:
    for field in shape.__struct_fields__:
        assert f"`{field}`" in SECTIONS[verb]


def test_every_field_of_an_error_is_documented() -> None:
    assert all(f"`{field}`" in DOCS for field in ErrorShape.__struct_fields__)


def test_every_exit_code_is_documented() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d) \|", DOCS, re.MULTILINE)}

    assert codes == {0, *EXITS.values()}


def test_every_verb_below_another_is_documented() -> None:
    for verb, command in COMMANDS.items():
        for below in getattr(command, "commands", {}):
            assert f"`herdbook {verb} {below}" in SECTIONS[verb]


def test_help_lists_the_verbs_in_order(herdbook: Herdbook) -> None:
    listed = re.findall(r"^  ([a-z][a-z-]*)  ", herdbook("--help").out, re.MULTILINE)

    assert tuple(listed) == VERBS


def test_no_arguments_show_the_help(herdbook: Herdbook) -> None:
    assert herdbook().out == herdbook("--help").out


def test_version_is_shown(herdbook: Herdbook) -> None:
    assert re.fullmatch(r"herdbook \d+\.\d+\.\d+\n", herdbook("--version").out)
