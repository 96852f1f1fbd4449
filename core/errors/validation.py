"""Messages of msgspec about invalid data, in words."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TYPES: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""The types of JSON, by msgspec's name."""

_UNITS: Final = {"str": "characters", "array": "entries", "object": "entries"}
_LIMITS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}

# As texts, which ``re`` compiles and keeps when they are first needed.
_AT: Final = r" - at `(?:key in )?\$\.?(.*)`$"
_FIELD: Final = r"Object (missing required|contains unknown) field `(.+)`"
_TYPE: Final = r"Expected `(.+)`, got `(.+)`"
_BOUND: Final = r"Expected `\w+` (>=|<=|>|<) (\S+)"
_LENGTH: Final = r"Expected `(\w+)` of length (>=|<=) (\d+)"
_VALUE: Final = r"Invalid enum value (.+)"


class Violation(NamedTuple):
    """What is wrong with data.

    Attributes:
        field: The invalid field with its path; empty for the whole.
        problem: The problem, as a clause that follows the field.
        value: The value that is none of a closed set, as in Python; or empty.
    """

    field: str
    problem: str
    value: str = ""

    def text(self, whole: str) -> str:
        """Return field and problem.

        Args:
            whole: What to call data whose field is not known.
        """
        return f"{self.field or whole} {self.problem}"


def violation(message: str) -> Violation:
    """Read a message of msgspec's ``ValidationError`` or ``DecodeError``."""
    found = re.search(_AT, message)
    path = found[1].replace("[...]", "") if found else ""
    text = message[: found.start()] if found else message
    if field := re.fullmatch(_FIELD, text):
        path = f"{path}.{field[2]}" if path else field[2]
        is_missing = field[1].startswith("missing")
        return Violation(path, "is missing" if is_missing else "is unknown")
    if value := re.fullmatch(_VALUE, text):
        return Violation(path, f"cannot be {value[1]}", value[1].strip("'"))
    if type_ := re.fullmatch(_TYPE, text):
        return Violation(path, f"must be {_types(type_[1])}, not {_types(type_[2])}")
    if length := re.fullmatch(_LENGTH, text):
        limit = f"{_LIMITS[length[2]]} {length[3]} {_UNITS.get(length[1], 'bytes')}"
        return Violation(path, f"must have {limit}")
    if bound := re.fullmatch(_BOUND, text):
        return Violation(
            path, f"must be {_LIMITS[bound[1]]} {bound[2].removesuffix('.0')}"
        )
    if text.startswith("JSON is malformed") or "truncated" in text:
        return Violation(path, "is not valid JSON")
    if text.startswith("is not "):  # an error of our own
        return Violation(path, text)
    return Violation(path, f"is not valid: {text.replace('`', '')}")


def _types(union: str) -> str:
    names = union.split(" | ")
    if "float" in names:
        names = [name for name in names if name != "int"]
    *others, last = [_TYPES.get(name, name) for name in names]
    return f"{', '.join(others)} or {last}" if others else last
