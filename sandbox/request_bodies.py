"""Read the bodies of requests as a Go program would.

Invariant: a field has the type that the Go struct gives it, or the request is
refused with Go's words; unknown fields are ignored.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import msgspec

from herdbook.sandbox.refusals import Refusal

Json: TypeAlias = dict[str, object]

_TEXTS: Final = ("model", "name", "source", "destination", "from", "prompt", "suffix")
#: Where msgspec found a mistake.
_PLACE: Final = re.compile(r"\(byte (\d+)\)")
#: Half of a surrogate pair.
_HALF: Final = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "bool": (bool,),
    "array": (list,),
    "object": (dict,),
}
_FIELDS: Final = dict.fromkeys(_TEXTS, "string") | {
    "system": "string",
    "template": "string",
    "insecure": "bool",
    "stream": "bool",
    "verbose": "bool",
    "truncate": "bool",
    "raw": "bool",
    "remote_host": "string",
    "messages": "array",
    "options": "object",
    "parameters": "object",
    "files": "object",
    "info": "object",
}


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
    """Decode a body for a Go struct of that name.

    Raises:
        Refusal: empty, no JSON, or a field of the wrong type.
    """
    if not raw:
        raise Refusal(400, "missing request body")
    fields = _decode(raw)
    if fields is None:
        return Body({})  # to Go, null is as good as nothing
    if not isinstance(fields, dict):
        into = f"Go value of type api.{struct}"
        raise Refusal(400, f"json: cannot unmarshal {_kind(fields)} into {into}")
    fields = _folded(fields)
    for field, value in fields.items():
        wanted = _FIELDS.get(field)
        if wanted and value is not None and not isinstance(value, _TYPES[wanted]):
            into = f"Go struct field {struct}.{field} of type {_go_type(wanted)}"
            raise Refusal(400, f"json: cannot unmarshal {_kind(value)} into {into}")
    return Body(fields)


def _folded(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields as Go reads them: it ignores the case of names.

    The last spelling of a name counts, and null changes nothing.
    """
    found: dict[str, Any] = {}
    for field, value in fields.items():
        folded = field.lower()
        name = folded if folded in _FIELDS else field
        if value is not None or name not in found:
            found[name] = value
    return found


def subject(raw: bytes) -> str:
    """Return the model that a body names, of a copy the new one; else nothing."""
    try:
        fields = msgspec.json.decode(_as_unicode(raw))
    except (msgspec.DecodeError, RecursionError):
        return ""
    named = _folded(fields) if isinstance(fields, dict) else {}
    names = (named.get(field) for field in ("model", "name", "destination"))
    return next((name for name in names if name and isinstance(name, str)), "")


def _as_unicode(raw: bytes) -> bytes:
    """Return JSON whose text is valid Unicode: Go replaces what is not."""
    utf_8 = raw.decode("utf-8", "replace").encode()
    return _HALF.sub(rb"\1\\ufffd", utf_8) if rb"\u" in utf_8 else utf_8


def _decode(raw: bytes) -> object:
    raw = _as_unicode(raw)
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise Refusal(400, "invalid character '[' exceeded max depth") from None
    except msgspec.DecodeError as error:
        if "truncated" in str(error):
            raise Refusal(400, "unexpected EOF") from None
        found = _PLACE.search(str(error))
        place = int(found[1]) if found else 0
        wanted = "object key string" if "keys" in str(error) else "value"
        character = chr(raw[place]) if place < len(raw) else ""
        words = f"invalid character '{character}' looking for beginning of {wanted}"
        raise Refusal(400, words) from None


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


def _go_type(wanted: str) -> str:
    go = {"array": "[]api.Message", "object": "map[string]interface {}"}
    return go.get(wanted, wanted)
