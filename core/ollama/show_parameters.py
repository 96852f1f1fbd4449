"""Parse a model's own parameters in ``/api/show``: one per line, in Go syntax."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

Parameter: TypeAlias = bool | int | float | str | list[bool | int | float | str]
"""The value of a parameter; a list if the parameter is repeated, such as ``stop``."""

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
