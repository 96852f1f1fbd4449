"""Output for terminals and pipes that are not UTF-8: ASCII forms, never an error."""

from __future__ import annotations

import codecs
import io
from typing import IO

_HANDLER = "herdbook.ascii"
_ASCII = str.maketrans(
    {
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{BOX DRAWINGS HEAVY HORIZONTAL}": "#",
        "\N{BOX DRAWINGS HEAVY LEFT}": "#",
        "\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-",
        "\N{MIDDLE DOT}": "|",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{MULTIPLICATION SIGN}": "x",
    }
)


def replace_unencodable(*streams: IO[str]) -> None:
    """Let streams replace what their encoding lacks instead of failing."""
    codecs.register_error(_HANDLER, _replace)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def is_unicode(stream: IO[str]) -> bool:
    """Return whether a stream can write every character."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("_", "-").startswith("utf")


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_ASCII)
    return "".join(c if c.isascii() else "?" for c in text), error.end
