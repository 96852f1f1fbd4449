"""The tree of errors: as documented, and each class with its own code."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

from herdbook import core, events
from herdbook.core import errors
from herdbook.core.errors import (
    BadAnswerError,
    CallerError,
    HerdbookError,
    LoadFailedError,
    LoadFailure,
    MissingExtraError,
    ModelNotFoundError,
    NodeTimeoutError,
    NodeUnreachableError,
    OllamaError,
    PullError,
    PullRefusal,
    PullRefusedError,
    ResourceExhaustedError,
    StalledError,
    StoreError,
    UnknownRoleError,
)
from herdbook.events import errors as event_errors

CLASSES = [
    member
    for name in errors.__all__
    if isinstance(member := getattr(errors, name), type)
    and issubclass(member, HerdbookError)
]


def drawn() -> list[tuple[int, str]]:
    """Return the tree of the docstring: depth and name of each class."""
    tree = re.findall(r"^ {4}([│├└─ ]*)(\w+Error)", errors.__doc__ or "", re.MULTILINE)
    return [(len(branch) // 4, name) for branch, name in tree]


def test_drawn_tree_matches_the_classes() -> None:
    above: list[str] = []
    for depth, name in drawn():
        del above[depth:]
        if depth:
            parent = getattr(errors, above[-1])
            assert parent in getattr(errors, name).__bases__
        above.append(name)


def test_every_class_of_this_module_is_in_the_tree() -> None:
    names = {name for _, name in drawn()}

    package = errors.__name__
    here = {e.__name__ for e in CLASSES if e.__module__.startswith(package)}
    assert here <= names


def test_list_of_names_is_sorted_and_complete() -> None:
    assert sorted(errors.__all__) == errors.__all__
    assert {name for name in vars(errors) if name.endswith("Error")} <= set(
        errors.__all__
    )


def test_every_class_has_its_own_code() -> None:
    codes = [each.code for each in CLASSES]

    assert sorted(set(codes)) == sorted(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_every_class_belongs_to_a_branch_of_the_tree() -> None:
    for each in CLASSES:
        if each is not HerdbookError:
            assert issubclass(
                each,
                CallerError
                | MissingExtraError
                | OllamaError
                | StoreError
                | ResourceExhaustedError,
            )


def test_the_message_has_subject_state_and_remedy() -> None:
    error = NodeUnreachableError("Ollama at x", raw="Connection refused")

    assert str(error) == (
        "Ollama at x cannot be reached: Connection refused. "
        "Start it with 'ollama serve', or correct its address in OLLAMA_HOST (for an "
        "added node, with 'herdbook node move')"
    )


def test_server_text_is_kept_and_shown_in_one_line() -> None:
    said = "one {brace}\n" + "long " * 200

    error = BadAnswerError("Ollama at x", raw=said)

    assert error.raw == said
    assert "\n" not in str(error)
    assert "one {brace} long" in str(error)
    assert len(str(error)) < 500


def test_state_without_a_reason_has_no_colon() -> None:
    assert str(PullError("m")) == "m cannot be pulled"


@pytest.mark.parametrize("failure", LoadFailure)
def test_a_failed_load_has_the_kind_of_its_cause(failure: LoadFailure) -> None:
    error = LoadFailedError("m:1", failure=failure, raw="said")

    assert (error.kind, error.raw, error.subject) == (failure.value, "said", "m:1")
    assert error.state.startswith("cannot be loaded")
    assert error.remedy


@pytest.mark.parametrize("refusal", PullRefusal)
def test_a_refused_pull_has_the_kind_of_its_cause(refusal: PullRefusal) -> None:
    error = PullRefusedError("m:1", refusal=refusal, raw="said")

    assert (error.kind, error.raw, error.subject) == (refusal.value, "said", "m:1")
    assert error.state.startswith("cannot be pulled")


def test_other_errors_have_their_class_as_kind() -> None:
    assert NodeTimeoutError("Ollama at x", seconds=2.5).kind == "node_timeout"
    assert "within 2.5 s" in str(NodeTimeoutError("Ollama at x", seconds=2.5))
    assert "no data arrived for 20 s" in str(StalledError("m", seconds=20))


def test_error_for_a_missing_model_has_the_pull_command() -> None:
    error = ModelNotFoundError("m:1", where="node local")

    assert str(error) == "m:1 is not on node local. Pull it first"


def test_an_unknown_role_error_lists_the_roles() -> None:
    error = UnknownRoleError("x" * 200, known=("coding", "fast"))

    assert error.remedy == "Roles: coding, fast"
    assert len(str(error)) < 150


def subclasses(kind: type[HerdbookError]) -> set[type[HerdbookError]]:
    """Return a class and all that descend from it."""
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_every_library_error_is_in_the_tree() -> None:
    for package in (core, events):  # else the result depends on the tests before it
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    tree = f"{event_errors.__doc__}{errors.__doc__}"
    ours = {
        kind.__name__
        for kind in subclasses(HerdbookError)
        if kind.__module__.startswith(("herdbook.core", "herdbook.events"))
        and not kind.__module__.endswith(("sqlite.errors", "postgres.errors"))
        and not kind.__module__.startswith("herdbook.core.upkeep.")  # never raised out
    }

    assert {name for name in ours if name not in tree} == set()
