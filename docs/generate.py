"""Make the parts of the documentation that are made from the code."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from herdbook.events.codec import SCHEMAS
from herdbook.events.facts import FACTS
from herdbook.events.lifecycle import TABLE, Transition
from herdbook.presentation.diagram import mermaid

HERE = Path(__file__).parent


def lifecycle() -> str:
    """Return the page about the lifecycle."""
    lines = [
        "# The lifecycle",
        "",
        "Made by `make docs` from the table in `events/lifecycle.py`; what no row",
        "allows is refused, with log and state unchanged.",
        "",
        "```mermaid",
        mermaid().strip(),
        "```",
        "",
        "| event | from | to | if | afterwards |",
        "|---|---|---|---|---|",
        *(_row(row) for row in TABLE),
        "",
    ]
    return "\n".join(lines)


def _row(row: Transition) -> str:
    sources = ", ".join(f"`{state}`" for state in row.sources)
    to = f"`{row.to}`" if row.to else "unchanged"
    guards = ", ".join(row.guards) or "-"
    words = [f"activity {row.activity}"] if row.activity else []
    if row.present is not None:
        words.append("present" if row.present else "absent")
    if row.updating is not None:
        words.append("updating" if row.updating else "not updating")
    return f"| {row.event} | {sources} | {to} | {guards} | {', '.join(words) or '-'} |"


def facts() -> str:
    """Return the page about the facts."""
    lines = ["# The facts", "", "Made by `make docs` from `events/facts.py`.", ""]
    for fact in FACTS:
        lines += [f"## {fact.__name__} (schema {SCHEMAS[fact.__name__]})", ""]
        lines += [_text(inspect.getdoc(fact) or ""), ""]
    return "\n".join(lines)


def _text(docstring: str) -> str:
    summary, _, attributes = docstring.partition("Attributes:\n")
    told: list[str] = []
    for line in attributes.splitlines():
        name, colon, meaning = line.strip().partition(": ")
        if line.startswith("    ") and not line.startswith("     ") and colon:
            told.append(f"* `{name}`: {meaning}")
        elif told:
            told[-1] += f" {line.strip()}"
    return "\n".join([summary.strip(), *([""] if told else []), *told])


PAGES = {"lifecycle.md": lifecycle, "facts.md": facts}


def main() -> int:
    """Write the pages; with ``--check``, only say whether they are up to date."""
    stale = [
        name
        for name, page in PAGES.items()
        if not (HERE / name).exists() or (HERE / name).read_text() != page()
    ]
    if "--check" not in sys.argv:
        for name in stale:
            (HERE / name).write_text(PAGES[name]())
        return 0
    for name in stale:
        print(f"docs/{name} is not up to date: make docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
