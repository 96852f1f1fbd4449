r"""JSON objects of requests, read without changing the bytes of their values.

JavaScript writes half of a surrogate pair, such as ``\ud83d``, where a text was cut in
the middle of a character. Go reads it as U+FFFD, so Ollama accepts it. So does this.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

Fields: TypeAlias = dict[str, msgspec.Raw]

_Value = TypeVar("_Value")

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items: Final = msgspec.json.Decoder(list[msgspec.Raw])
_text: Final = msgspec.json.Decoder(str)
_any: Final = msgspec.json.Decoder()

_SURROGATES: Final = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|[89a-fA-F][0-9a-fA-F]{2})"
)
"""A pair of surrogates, or half of one."""

_PAIR: Final = len(rb"\ud83d\ude00")

_KNOWN: Final = frozenset(
    {
        *("model", "name", "source", "destination", "from", "options", "keep_alive"),
        *("prompt", "messages", "input", "system", "instructions", "stream"),
        *("stream_options", "temperature", "top_p", "top_k", "seed"),
    }
)
"""Fields of requests that the gateway reads or adds."""

_MOST_SURROGATES: Final = 10_000
"""Pairs and halves that are looked at; each takes about a microsecond."""


def fields_of(body: bytes | msgspec.Raw) -> Fields:
    """Return the fields of an object; of several equal keys, the last one counts.

    Raises:
        msgspec.DecodeError: The body is not one object, or is nested too deeply.
    """
    return _decoded(_fields, body)


def request_fields(body: bytes) -> Fields:
    """Return the fields of a request, those that are known under their usual names.

    Go ignores the case of names, and some programs write them like ``Model``.

    Raises:
        msgspec.DecodeError: The body is not one object, is nested too deeply, or has
            one of the known fields twice, in different case.
    """
    fields = fields_of(body)
    if all(name.islower() for name in fields):
        return fields
    found: Fields = {}
    for name, value in fields.items():
        lower = name.lower()
        usual = lower if lower in _KNOWN else name
        if usual in found:
            raise msgspec.DecodeError(
                f"JSON has the field {usual!r} twice, in different case"
            )
        found[usual] = value
    return found


def request_fields_if_any(body: bytes) -> Fields:
    """Return the fields of a request as ``request_fields``; empty if it has none.

    The server reports what is wrong with it.
    """
    try:
        return request_fields(body)
    except msgspec.DecodeError:
        return {}


def items_of(value: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the items of an array.

    Raises:
        msgspec.DecodeError: The value is not an array, or is nested too deeply.
    """
    return _decoded(_items, value)


def text_of(value: bytes | msgspec.Raw) -> str:
    """Return a text.

    Raises:
        msgspec.DecodeError: The value is not a text.
    """
    return _decoded(_text, value)


def value_in(value: bytes | msgspec.Raw) -> Any:
    """Return any value.

    Raises:
        msgspec.DecodeError: The value is not JSON, or is nested too deeply.
    """
    return _decoded(_any, value)


def _decoded(
    decoder: msgspec.json.Decoder[_Value], value: bytes | msgspec.Raw
) -> _Value:
    try:
        try:
            return decoder.decode(value)
        except msgspec.DecodeError:
            return decoder.decode(_without_lone_surrogates(bytes(value)))
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(f"JSON cannot be read: {error}") from None


def _without_lone_surrogates(raw: bytes) -> bytes:
    """Return JSON with U+FFFD in place of each half of a surrogate pair."""
    pieces: list[bytes] = []
    done = at = 0
    for _ in range(_MOST_SURROGATES):
        found = _SURROGATES.search(raw, at)
        if found is None:
            break
        start, at = found.span()
        before = raw[max(start - 1_000, 0) : start]
        if (len(before) - len(before.rstrip(b"\\"))) % 2:
            at = start + 1  # a backslash, and then text
        elif at - start < _PAIR:
            pieces += (raw[done:start], rb"\ufffd")
            done = at
    return b"".join([*pieces, raw[done:]])


def text_field(fields: Fields, field: str) -> str:
    """Return a text of a JSON object; empty if there is none."""
    try:
        return text_of(fields.get(field, b'""'))
    except msgspec.DecodeError:
        return ""
