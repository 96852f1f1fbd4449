"""JSON objects of requests, read without changing the bytes of their values."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

Fields: TypeAlias = dict[str, msgspec.Raw]

_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def fields_of(body: bytes | msgspec.Raw) -> Fields:
    """Return the fields of an object; of several equal keys, the last one counts.

    Raises:
        msgspec.DecodeError: The body is not one object, or is nested too deeply.
    """
    try:
        return _decode_fields(body)
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deeply") from None


def items_of(value: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the items of an array.

    Raises:
        msgspec.DecodeError: The value is not an array, or is nested too deeply.
    """
    try:
        return _decode_items(value)
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deeply") from None
