"""Parse a model's own parameters in ``/api/show``: one per line, in Go syntax."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from herdbook.core.ollama.bounds import LONGEST_WORD

Parameter: TypeAlias = bool | int | float | str | list[bool | int | float | str]
"""The value of a parameter; a list if the parameter is repeated, such as ``stop``."""

MOST: Final = 64
"""Parameters of a model, and values of one: Ollama knows about 30 parameters."""

LONGEST_TEXT: Final = 1000
"""Characters of a text in an event, such as a stop sequence."""

LARGEST_NUMBER: Final = 2**53
"""Beyond this, JSON numbers are not exact in every program."""

_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL
)
_ESCAPED: Final = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))


def parse_parameters(text: str) -> dict[str, Parameter]:
    """Parse lines of a name, spaces and a value in Go syntax; sorted by name."""
    parameters: dict[str, Parameter] = {}
    for name, value in sorted(_parameter_lines(text), key=lambda pair: pair[0]):
        before = parameters.get(name)
        if before is None:
            parameters[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            parameters[name] = [before, value]
    return parameters


def bounded(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return the parameters that an event may contain; the others are left out.

    At most ``MOST`` names; texts of at most ``LONGEST_TEXT`` characters and lists of at
    most ``MOST`` of them; finite numbers that JSON can represent exactly.
    """
    found: dict[str, Parameter] = {}
    for name, value in parameters.items():
        values = value if isinstance(value, list) else [value]
        few = len(found) < MOST and len(values) <= MOST
        if few and len(name) <= LONGEST_WORD and all(map(_is_exact, values)):
            found[name] = value
    return found


def _is_exact(value: bool | float | str) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    # The comparison first: a whole number may be too large for math.isfinite.
    return abs(value) < LARGEST_NUMBER and math.isfinite(value)


def _parameter_lines(text: str) -> Iterator[tuple[str, bool | int | float | str]]:
    for line in text.split("\n"):
        name, _, written = line.strip().partition(" ")
        if name:
            yield name, _go_value(written.strip())


def _go_value(text: str) -> bool | int | float | str:
    """Parse a value in the form of Go's ``%#v``; anything else remains a string."""
    if text in {"true", "false"}:
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _ESCAPE.sub(_unescape, text[1:-1])
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _unescape(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits is None:
        return _ESCAPED.get(found[4], found[4])
    code = int(digits, 16)
    return chr(code) if code <= 0x10FFFF else found[0]
