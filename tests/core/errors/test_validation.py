"""Messages of msgspec in words."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from herdbook.core.errors.validation import violation


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    names: Annotated[list[str], msgspec.Meta(max_length=2)] = []


class Outer(msgspec.Struct):
    kind: str
    inner: Inner | None = None
    values: dict[str, int | float | str] = {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "kind is missing"),
        ("[]", "it must be an object, not a list"),
        ('{"kind": 1}', "kind must be text, not a whole number"),
        ('{"kind": "a", "inner": 1}', "inner must be an object or null, not a whole "),
        ('{"kind": "a", "inner": {"sise": 1}}', "inner.sise is unknown"),
        ('{"kind": "a", "inner": {"size": 0}}', "inner.size must be at least 1"),
        ('{"kind": "a", "inner": {"size": 10}}', "inner.size must be at most 9"),
        (
            '{"kind": "a", "inner": {"names": ["", "", ""]}}',
            "inner.names must have at most 2 entries",
        ),
        (
            '{"kind": "a", "values": {"x": []}}',
            "values must be a number or text, not ",
        ),
        ('{"kind"', "it is not valid JSON"),
        ('{"kind": "a"} x', "it is not valid JSON"),
    ],
)
def test_a_message_names_the_field_and_the_problem(text: str, said: str) -> None:
    with pytest.raises(msgspec.MsgspecError) as error:
        msgspec.json.decode(text, type=Outer)

    assert violation(str(error.value)).text("it").startswith(said)


def test_an_error_of_our_own_is_kept() -> None:
    own = "is not a valid model name: it is empty"

    assert violation(own).text("it") == f"it {own}"
