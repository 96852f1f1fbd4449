"""The model's name in a request's body, however the body is cut and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.gateway.protocol.json_bodies import request_fields_if_any
from herdbook.gateway.recording.model_scan import ModelScan

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)


def scanned(body: bytes, *cuts: int) -> dict[str, str]:
    """Scan a body in pieces."""
    scan = ModelScan(("model", "name"))
    ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    start = 0
    for end in ends:
        scan.feed(body[start:end])
        start = end
    return scan.found


def read_at_once(body: bytes) -> dict[str, str]:
    """Read a whole body."""
    scan = ModelScan(("model", "name"))
    scan.feed_whole(body, request_fields_if_any(body))
    return scan.found


@given(
    st.dictionaries(st.text(), values, max_size=4),
    st.text(min_size=1, max_size=100),
    st.lists(st.integers(0, 300), max_size=6),
    st.booleans(),
)
def test_the_name_is_found_among_any_other_fields(
    others: dict[str, Any], name: str, cuts: list[int], ascii_only: bool
) -> None:
    body = {k: v for k, v in others.items() if k.lower() not in {"model", "name"}}
    text = json.dumps({**body, "model": name, "more": body}, ensure_ascii=ascii_only)
    raw = text.encode("utf-8", "surrogatepass")
    found = scanned(raw, *cuts)
    assert found.get("model") == name or "\\ud" in text.lower()
    assert read_at_once(raw) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('{"model":"a","model":"b"}', {"model": "b"}),
        ('{"MODEL":"a"}', {"model": "a"}),
        ('{"name":"a","model":"b"}', {"name": "a", "model": "b"}),
        ('{"options":{"model":"no"},"messages":[{"model":"no"}]}', {}),
        ('[{"model":"no"}]', {}),
        ('{"x":"model","y":"a"}', {}),
        ('{"prompt":"\\"model\\":\\"no\\"","model":"a"}', {"model": "a"}),
        ('{"model":7}', {}),
        ('{"model":null,"prompt":"x"}', {}),
        ('{"model":"' + "x" * 5000 + '"}', {"model": ""}),
        ("not JSON", {}),
        ("", {}),
        ("}}}]", {}),
    ],
)
def test_only_the_last_name_at_the_top_counts(body: str, found: dict[str, str]) -> None:
    assert scanned(body.encode()) == found
    assert scanned(body.encode(), *range(len(body))) == found
    assert read_at_once(body.encode()) == found


def test_images_before_the_name_are_not_collected() -> None:
    scan = ModelScan(("model",))
    scan.feed(b'{"images":["')
    for _ in range(100):
        scan.feed(b"A" * 100_000)
    scan.feed(b'"],"model":"llava"}')
    assert scan.found == {"model": "llava"}
