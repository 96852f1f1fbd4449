"""Names with colons in bash, which splits the words of a command line at colons."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Final

_REQUEST: Final = ("_HERDBOOK_COMPLETE", "complete_bash")


@contextmanager
def joined_at_colons() -> Iterator[None]:
    """Complete ``gemma3:4`` as one word, if the process completes a line of bash.

    Bash passes it as three words and replaces only the text after the last colon, so
    the completions are written without the text before it.
    """
    name, request = _REQUEST
    if os.environ.get(name) != request:
        yield
        return
    given = os.environ.get("COMP_WORDS", "").split("\n")
    at = int(os.environ.get("COMP_CWORD", "0"))
    words = joined([*given, ""][: at + 1])
    is_split = len(words) <= at
    replaced = words[-1].rpartition(":")[0] + ":" if is_split else ""
    os.environ["COMP_WORDS"] = "\n".join(words)
    os.environ["COMP_CWORD"] = str(len(words) - 1)
    written = io.StringIO()
    try:
        with redirect_stdout(written):
            yield
    finally:
        for line in written.getvalue().splitlines():
            sys.stdout.write(f"{line.removeprefix(replaced)}\n")


def joined(words: Sequence[str]) -> list[str]:
    """Return the words with those joined that bash split at a colon."""
    whole: list[str] = []
    for word in words:
        is_colon = word.startswith(":")
        if len(whole) > 1 and (is_colon or whole[-1].endswith(":")):
            whole[-1] += word
        else:
            whole.append(word)
    return whole
