"""Read JSON as the server does, with Go's words for what is wrong.

Invariant: only the first value of a text counts, and text that is not Unicode is
replaced, never refused.
"""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import Final

import msgspec

from herdbook.sandbox.refusals import Malformed

SPACE: Final = " \t\r\n"
"""The space of JSON."""

#: Half of a surrogate pair.
_HALF: Final = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
#: What Go calls the places where Python's parser expected something else.
_PLACES: Final = {
    "Expecting property name enclosed in double quotes": "looking for beginning of "
    "object key string",
    "Illegal trailing comma before end of object": "looking for beginning of object "
    "key string",
    "Expecting ':' delimiter": "after object key",
    "Invalid control character at": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": "in \\u hexadecimal character escape",
}


def as_unicode(raw: bytes) -> bytes:
    """Return JSON whose text is valid Unicode: Go replaces what is not."""
    utf_8 = raw.decode("utf-8", "replace").encode()
    return _HALF.sub(rb"\1\\ufffd", utf_8) if rb"\u" in utf_8 else utf_8


def decode(raw: bytes) -> object:
    """Decode the first value of a body: Go ignores what follows it.

    Raises:
        Malformed: It is not JSON.
    """
    text = as_unicode(raw)
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise Malformed(400, "invalid character '[' exceeded max depth") from None
    except msgspec.DecodeError:
        return _decode_first(raw, text)


def _decode_first(raw: bytes, text: bytes) -> object:
    try:
        return _FIRST.raw_decode(text.decode().lstrip(SPACE))[0]
    except (RecursionError, json.JSONDecodeError):
        pass
    try:  # Go's errors name bytes, not characters
        return _FIRST.raw_decode(raw.decode("latin-1").lstrip(SPACE))[0]
    except RecursionError:
        raise Malformed(400, "invalid character '[' exceeded max depth") from None
    except json.JSONDecodeError as error:
        raise Malformed(400, _go_error(error)) from None


def _no_constant(name: str) -> object:
    raise json.JSONDecodeError("Expecting value", name, 0)


_FIRST: Final = json.JSONDecoder(parse_constant=_no_constant)


def _go_error(error: json.JSONDecodeError) -> str:
    """Return Go's text for an error of Python's parser."""
    rest = error.doc[error.pos :]
    if error.msg.startswith("Invalid \\"):
        rest = rest[1:]
    elif error.msg.startswith("Illegal trailing comma"):  # Python 3.13
        rest = rest[1:].lstrip(SPACE)
    place = _PLACES.get(error.msg, "looking for beginning of value")
    if error.msg == "Expecting ',' delimiter":
        place = _place_of_comma(error.doc[: error.pos])
    elif error.msg == "Expecting value" and rest:
        rest, place = _in_literal(rest) or (rest, place)
    if not rest or error.msg == "Unterminated string starting at":
        return "unexpected EOF"
    return f"invalid character {_go_character(rest[0])} {place}"


def _in_literal(rest: str) -> tuple[str, str] | None:
    """Return the rest of a text from where it departs from a literal, and the place."""
    literals = {"t": "true", "f": "false", "n": "null"}
    literal = literals.get(rest[0])
    if literal is None:
        return None
    pairs = zip(rest, literal, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    wanted = literal[same : same + 1]
    return rest[same:], f"in literal {literal} (expecting '{wanted}')"


def _place_of_comma(before: str) -> str:
    """Say where a comma is missing: in an object or in an array."""
    opened: list[str] = []
    for mark in re.findall(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', before):
        if mark in "{[":
            opened.append(mark)
        elif mark in "}]":
            opened.pop()
    in_object = opened[-1:] == ["{"]
    return "after object key:value pair" if in_object else "after array element"


def _go_character(character: str) -> str:
    """Quote a character as Go does."""
    special = {"'": r"'\''", '"': "'\"'", "\n": r"'\n'", "\t": r"'\t'", "\r": r"'\r'"}
    return special.get(character, f"'{character}'")
