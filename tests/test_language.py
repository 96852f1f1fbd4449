"""Texts that users read avoid a list of words; see ``BANNED``.

A folder is added to ``SOURCES`` once its texts are plain. From then on the words
cannot come back.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from herdbook.cli.app import app
from herdbook.cli.commands import VERBS, register_all

ROOT = Path(__file__).parent.parent

BANNED = re.compile(
    r"""
    \b(?:
        tells?|told|anew|deeds?|beside|begun|pretend(?:s|ed|ing)?
        |(?<!in\ a\ )(?<!same\ )moment
        |for\ ever|in\ vain|at\ most\ so\ many|of\ ours
        |(?<!there\ )is\ no(?=\ (?!longer|more)\w)
        |that\ much|lets\ go|goes\ on|what\ comes
    )\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Words that are odd in the sense in which they were used here."""

PAGES = [
    *("CHANGELOG.md", "CONTRIBUTING.md", "README.md"),
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]
"""Pages of documentation without banned words."""

SOURCES = (
    *("benchmarks", "cli", "core", "events", "gateway", "library", "presentation"),
    *("projections", "sandbox", "service", "docs/generate.py", "docs/history.py"),
    *("docs/screenshots.py", "tests/campaign", "tests/cli/conftest.py"),
    *("tests/faults", "tests/proof", "tests/support", "Makefile", "pyproject.toml"),
)
"""Folders and files of Python and templates without banned words in their texts."""


def words_in(text: str) -> list[str]:
    """Return the banned words of a text, with what is around them."""
    return [
        " ".join(text[max(found.start() - 40, 0) : found.end() + 40].split())
        for found in BANNED.finditer(text)
    ]


def without_code(page: str) -> str:
    """Return the prose of a page: no blocks and spans of code."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^ {4}.*$", "", prose, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`", "", prose)


def texts_of(file: Path) -> Iterator[str]:
    """Yield the string literals of a module that are not docstrings or names."""
    tree = ast.parse(file.read_text("utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and " " in node.value
        ):
            yield node.value


def html_text(template: str) -> str:
    """Return a template without its statements and without names in attributes."""
    text = re.sub(r"\{[%#{].*?[%#}]\}", "", template, flags=re.DOTALL)
    return re.sub(r'\s(?:class|id|for|aria-\w+by)="[^"]*"', "", text)


def verbs(command: Any, name: str = "herdbook") -> Iterator[tuple[str, str]]:
    """Yield each verb's name with its help; Typer does not export its Click types."""
    yield name, command.get_help(command.context_class(command, info_name=name))
    for key, one in getattr(command, "commands", {}).items():
        yield from verbs(one, f"{name} {key}")


register_all()
HELP = dict(verbs(typer.main.get_command(app)))
assert len(HELP) > len(VERBS)


@pytest.mark.parametrize("verb", HELP)
def test_help_is_plain(verb: str) -> None:
    assert words_in(HELP[verb]) == []


@pytest.mark.parametrize("page", PAGES)
def test_page_is_plain(page: str) -> None:
    assert words_in(without_code((ROOT / page).read_text("utf-8"))) == []


def sources() -> list[Path]:
    """Return the modules and templates of ``SOURCES``."""
    found: list[Path] = []
    for name in SOURCES:
        place = ROOT / name
        if place.is_file():
            found.append(place)
        found += [*place.rglob("*.py"), *place.rglob("*.html")]
    return sorted(found)


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(ROOT)))
def test_texts_are_plain(file: Path) -> None:
    if file.suffix == ".py":
        texts = "\n".join(texts_of(file))
    else:
        texts = html_text(file.read_text("utf-8"))
    assert words_in(texts) == []


def test_banned_words_are_found() -> None:
    text = "It tells who it is. That is no name. This is no longer so."

    assert len(words_in(text)) == 2
    assert words_in("`told` in code is fine") != []
    assert words_in(without_code("`told` in code is fine")) == []
