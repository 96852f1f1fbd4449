"""Bounds for everything that a server answers: types, ranges and lengths.

A required field that is out of bounds makes its entry unreadable. An optional field
that is out of bounds counts as missing: see ``lenient``. The figures are far above
anything real and far below what would hold up the program or not fit into the log.
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
"""Tokens of a context: Ollama keeps it in 32 bits."""

LONGEST_WORD: Final = 64
"""Characters of a word such as a family, a quantization or a capability."""

MOST_CAPABILITIES: Final = 64
"""Capabilities of one model; Ollama knows about ten."""

LONGEST_SAID: Final = 8192
"""Characters that are kept of what a server says went wrong."""

_SMALL: Final = 64 * 2**10
"""Bytes of JSON that an optional field may have to be decoded at all."""

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
"""What msgspec raises for JSON that it cannot read: broken, too deep, no UTF-8."""

NULL: Final = msgspec.Raw(b"null")

Value = TypeVar("Value")


def optional(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder of a field that may be null: made once, it is fast."""
    return msgspec.json.Decoder(kind | None)


def lenient(
    raw: msgspec.Raw,
    decoder: msgspec.json.Decoder[Any],
    default: Value,
    *,
    longest: int = _SMALL,
) -> Value:
    """Return an optional field, or ``default`` where it is not what it should be.

    Args:
        raw: The JSON of the field.
        decoder: Decodes the type that it should have; see ``optional``.
        default: What counts where it has another one, or is out of bounds.
        longest: Bytes that it may have.
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
    """Return a field that is a printable word, or an empty text."""
    text = lenient(raw, _WORD, "")
    return text if text.isprintable() else ""


def words(raw: msgspec.Raw) -> list[str] | None:
    """Return a list of words without those that are none; None where it is no list.

    A list of too many words says nothing either.
    """
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
    """Return a server's text for people: short, in one line, without control codes."""
    return in_line(text, longest)
