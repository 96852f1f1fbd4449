"""Read the bodies of requests as a Go program would.

Invariant: a field has the type that the Go struct gives it, or the request is
refused with Go's words; unknown fields are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final, TypeAlias

import msgspec

from herdbook.sandbox.go_json import SPACE, as_unicode, decode
from herdbook.sandbox.go_time import keep_alive_s
from herdbook.sandbox.refusals import Malformed, Refusal
from herdbook.sandbox.request_fields import STRUCTS, Field

Json: TypeAlias = dict[str, object]

#: Fields of any type, or of one that reads itself.
_FREE: Final = frozenset(
    ("format", "input", "keep_alive", "license", "stop", "stream_options", "think")
)
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "bool": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}
_THINKING: Final = '"high", "medium", "low", "max", true, or false'
_BASE64: Final = re.compile(r"[A-Za-z0-9+/\r\n]*={0,2}")


class Body:
    """The decoded body of one request, read by field and type."""

    def __init__(self, fields: Json) -> None:
        self._fields = fields

    def get(self, field: str) -> object:
        """Give a field as it stands, None where it is missing."""
        return self._fields.get(field)

    def text(self, field: str) -> str:
        """Give a text, empty where it is missing."""
        value = self._fields.get(field)
        return value if isinstance(value, str) else ""

    def flag(self, field: str, *, default: bool = False) -> bool:
        """Give a truth value."""
        value = self._fields.get(field)
        return value if isinstance(value, bool) else default

    def table(self, field: str) -> Json:
        """Give an object, empty where it is missing."""
        value = self._fields.get(field)
        return value if isinstance(value, dict) else {}

    def items(self, field: str) -> list[object]:
        """Give a list, empty where it is missing."""
        value = self._fields.get(field)
        return value if isinstance(value, list) else []

    @property
    def model(self) -> str:
        """The model that the request is about; ``name`` is its older field."""
        return self.text("model") or self.text("name")


def read_body(raw: bytes, struct: str) -> Body:
    """Decode a body for a Go struct, such as ``api.ShowRequest``.

    Raises:
        Malformed: Empty, not JSON, or a field of the wrong type.
    """
    wanted = STRUCTS[struct]
    if not raw.strip(SPACE.encode()):
        own = wanted.package == "api"
        raise Malformed(400, "missing request body" if own else "EOF")
    fields = decode(raw)
    if fields is None:
        return Body({})  # as in Go, which leaves the struct empty
    if not isinstance(fields, dict):
        into = f"Go value of type {struct}"
        raise Malformed(400, f"json: cannot unmarshal {_kind(fields)} into {into}")
    fields = _folded(fields, {*wanted.fields, *_FREE})
    if "name" not in wanted.fields:
        fields.pop("name", None)
    if "options" in wanted.fields and wanted.name != "ShowRequest":
        _check_free(fields)
    for field, value in fields.items():
        if field in wanted.fields:
            _check(value, wanted.fields[field], f"{wanted.name}.{field}")
    return Body(fields)


def _check(value: object, field: Field, place: str) -> None:
    """Refuse a value of the wrong type, in the words of Go.

    Args:
        value: The value.
        field: What it must be.
        place: Where it stands, as Go names it.

    Raises:
        Malformed: It has another type.
    """
    if value is None:
        return
    wrong_number = field.kind in {"integer", "number"} and isinstance(value, bool)
    if wrong_number or not isinstance(value, _KINDS[field.kind]):
        kind = _kind(value)
        if field.kind == "integer" and isinstance(value, float):
            kind = f"number {value!r}"
        into = f"Go struct field {place} of type {field.go}"
        raise Malformed(400, f"json: cannot unmarshal {kind} into {into}")
    if isinstance(value, dict):
        for name, inner in field.fields.items():
            _check(value.get(name), inner, f"{place}.{name}")
    if field.items is not None and isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, field.items, place)
            if field.go == "[]api.ImageData":
                _check_base64(item)


def _check_base64(text: str) -> None:
    """Refuse an image that is not base64."""
    valid = _BASE64.match(text)
    place = valid.end() if valid else 0
    if place < len(text) or len(text) % 4:
        place = place if place < len(text) else len(text) // 4 * 4
        raise Malformed(400, f"illegal base64 data at input byte {place}")


def _check_free(fields: Json) -> None:
    """Refuse values of the types that read themselves, before all others."""
    try:
        keep_alive_s(fields.get("keep_alive"))
    except Refusal as refusal:
        raise Malformed(refusal.status, refusal.text) from None
    match fields.get("think"):
        case None | bool() | "high" | "medium" | "low" | "max":
            pass
        case str(text):
            quoted = msgspec.json.encode(text).decode()
            words = f"invalid think value: {quoted} (must be {_THINKING})"
            raise Malformed(400, words)
        case _:
            words = f"think must be a boolean or string ({_THINKING})"
            raise Malformed(400, words)


def _folded(fields: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the fields as Go reads them: it ignores the case of names.

    The last spelling of a name counts, and null changes nothing.
    """
    found: dict[str, Any] = {}
    for field, value in fields.items():
        folded = field.lower()
        name = folded if folded in known else field
        if value is not None or name not in found:
            found[name] = value
    return found


def subject(raw: bytes) -> str:
    """Return the model that a body names, of a copy the new one; else nothing."""
    try:
        fields = msgspec.json.decode(as_unicode(raw))
    except (msgspec.DecodeError, RecursionError):
        return ""
    keys = ("model", "name", "destination")
    named = _folded(fields, keys) if isinstance(fields, dict) else {}
    names = (named.get(field) for field in keys)
    return next((name for name in names if name and isinstance(name, str)), "")


def _kind(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "number"
