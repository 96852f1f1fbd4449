"""Bounds for everything that a server answers: types, ranges and lengths.

A required field that is out of bounds makes its entry unreadable. An optional field
that is out of bounds counts as missing: see ``lenient``. The limits are far above
real values, and far below values that would block the program or not fit into the
log.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

from herdbook.events.errors import in_line

LARGEST_BYTES: Final = 2**50
"""Bytes of a model, a layer or a runner: 1 PiB."""

LARGEST_COUNT: Final = 10**15
"""Parameters of a model."""

LARGEST_CONTEXT: Final = 2**31 - 1
"""Tokens of a context: Ollama stores it in 32 bits."""

LONGEST_WORD: Final = 64
"""Characters of a word such as a family, a quantization or a capability."""

MOST_CAPABILITIES: Final = 64
"""Capabilities of one model; Ollama knows about ten."""

LONGEST_MESSAGE: Final = 8192
"""Characters kept of a server's error message."""

_SMALL: Final = 64 * 2**10
"""Bytes of JSON beyond which an optional field is not decoded."""

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=600)]
Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_BYTES)]
Context: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_CONTEXT)]
Host: TypeAlias = Annotated[str, msgspec.Meta(max_length=512)]
Word: TypeAlias = Annotated[str, msgspec.Meta(max_length=LONGEST_WORD)]

UNREADABLE: Final = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
)
"""Raised by msgspec for JSON that is broken, nested too deeply or not UTF-8."""

NULL: Final = msgspec.Raw(b"null")

Value = TypeVar("Value")


def optional(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder for a field that may be null. Create it once: that is slow."""
    return msgspec.json.Decoder(kind | None)


def lenient(
    raw: msgspec.Raw,
    decoder: msgspec.json.Decoder[Any],
    default: Value,
    *,
    longest: int = _SMALL,
) -> Value:
    """Return an optional field, or ``default`` if it is missing or not valid.

    Args:
        raw: The JSON of the field.
        decoder: A decoder for the expected type; see ``optional``.
        default: Returned if the field has another type or is out of bounds.
        longest: Maximum size of the field's JSON, bytes.
    """
    if len(raw) > longest:
        return default
    try:
        found: Value | None = decoder.decode(raw)
    except UNREADABLE:
        return default
    return default if found is None else found


_WORD: Final = optional(Word)
_LIST: Final = optional(list[msgspec.Raw])


def word(raw: msgspec.Raw) -> str:
    """Return a field that is a printable word, or an empty string."""
    text = lenient(raw, _WORD, "")
    return text if text.isprintable() else ""


def words(raw: msgspec.Raw) -> list[str] | None:
    """Return the valid words of a list; None if it is not a list or is too long."""
    found: list[msgspec.Raw] = lenient(raw, _LIST, [NULL])
    if found == [NULL] or len(found) > MOST_CAPABILITIES:
        return None
    return list(dict.fromkeys(filter(None, map(word, found))))


def in_range(value: object, largest: int) -> int | None:
    """Return a positive whole number up to ``largest``; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= largest:
        return value
    return None


def printable(text: str, longest: int = 100) -> str:
    """Return a server's text as one short line without control characters."""
    return in_line(text, longest)
