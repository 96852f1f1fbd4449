"""The page of drift and faults: its tests exist, and it lists every fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from herdbook.core import OllamaError, PullError, UnloadReason
from herdbook.core.errors import LoadFailure, PullRefusal
from herdbook.sandbox import faults

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "faults.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]
NAMED = set(re.findall(r"\[(test_\w+)\]\(([^)]+)\)", PAGE))
ROOTS = {OllamaError.code, PullError.code}
"""They are raised as one of their kinds alone."""


def kinds(of: type[OllamaError]) -> Iterator[str]:
    """Yield the words that failures are recorded by."""
    yield of.code
    for kind in of.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize(("test", "file"), sorted(NAMED))
def test_test_that_a_row_names_exists(test: str, file: str) -> None:
    source = (DOCS / file).read_text()

    assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE)


def test_every_row_names_a_test() -> None:
    rows = [row for row in ROWS if not row.startswith("| event")]

    assert [row for row in rows if "](../tests/" not in row] == []


@pytest.mark.parametrize("fault", sorted(faults._STEPS))
def test_every_fault_of_the_sandbox_has_a_row(fault: str) -> None:
    assert any(f"`{fault}`" in row for row in ROWS)


@pytest.mark.parametrize("reason", UnloadReason)
def test_every_reason_of_an_unload_has_a_row(reason: UnloadReason) -> None:
    assert any(f"`ModelUnloaded` `{reason}`" in row for row in ROWS)


@pytest.mark.parametrize(
    "kind", sorted({*kinds(OllamaError), *LoadFailure, *PullRefusal} - ROOTS)
)
def test_every_kind_of_failure_has_a_row(kind: str) -> None:
    assert any(f"`{kind}`" in row for row in ROWS)


@pytest.mark.parametrize("test", ["runners", "pulls", "loads", "server"])
def test_every_scenario_is_on_the_page(test: str) -> None:
    source = (Path(__file__).parent / f"test_{test}.py").read_text()
    stories = set(re.findall(r"^def (test_\w+)\(", source, re.MULTILINE))

    assert stories - {name for name, _ in NAMED} == set()
