"""Lists of models that the gateway changes: roles as models, and limited tokens."""

from __future__ import annotations

import json

import pytest
from support.gateway.recording import LIMITS, recording_gateway

from herdbook.core import CallerError
from herdbook.gateway.access.limits import Limits
from herdbook.gateway.rewriting.lists import changed_list, merged_list

ROLES = {"role:coding", "role:general", "role:embedding", "role:fast"}


async def test_roles_are_listed_with_the_facts_of_their_models() -> None:
    async with recording_gateway(roles=True) as there:
        chosen = await there.manager.recommend("coding")
        assert chosen is not None

        tags = (await there.http.get("/api/tags")).json()["models"]
        listed = (await there.http.get("/v1/models")).json()
        version = (await there.http.get("/api/version")).json()

    by_name = {entry["name"]: entry for entry in tags}
    role, model = by_name["role:coding"], by_name[chosen.name]
    assert by_name.keys() >= ROLES
    assert role == model | {"name": "role:coding", "model": "role:coding"}
    assert {entry["id"] for entry in listed["data"]} == by_name.keys()
    assert listed["object"] == "list"
    assert "version" in version


async def test_role_can_be_shown_and_used_as_it_is_listed() -> None:
    async with recording_gateway(roles=True) as there:
        chosen = await there.manager.recommend("coding")
        assert chosen is not None
        shown = await there.http.post("/api/show", json={"model": "role:coding"})
        same = await there.http.post("/api/show", json={"model": chosen.name})
        old = await there.http.post("/api/show", json={"name": "role:coding"})
        missing = await there.http.post("/api/show", json={"model": "role:nonsense"})

    assert shown.status_code == 200
    assert old.content == shown.content == same.content
    assert shown.headers["X-Herdbook-Model"] == chosen.name
    assert missing.status_code == 404


async def test_lists_keep_their_bytes_without_roles_and_limits() -> None:
    async with recording_gateway() as there:
        through = await there.http.get("/api/tags")
        names = {entry["name"] for entry in through.json()["models"]}

    assert not names & ROLES


async def test_limited_token_sees_the_models_that_it_may_use() -> None:
    LIMITS["few"] = Limits(models=("llama3*",))
    async with recording_gateway(tokens=True, roles=True) as there:
        headers = {"Authorization": "Bearer key-few"}
        answer = await there.http.get("/api/tags", headers=headers)

    names = {entry["name"] for entry in answer.json()["models"]}
    models = {name for name in names if not name.startswith("role:")}
    assert models
    assert all(name.startswith("llama3") for name in models)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"models": 7}', b"{}"])
def test_answer_that_is_not_a_list_of_models_passes(body: bytes) -> None:
    found = changed_list("/api/tags", body, recommend=None, allowed=lambda _: True)

    assert found == body


def test_odd_entries_do_not_cost_the_good_ones() -> None:
    body = b'{"models":[{"name":"a:1"},1,{"name":2},{"name":"b:1"}]}'

    everything = changed_list("/api/tags", body, recommend=None, allowed=Limits().allow)
    limited = Limits(models=("b:*",)).allow
    one = changed_list("/api/tags", body, recommend=None, allowed=limited)
    merged = merged_list("/api/tags", [body, b'{"models":[{"name":"a:1"}]}'])

    assert everything == merged == body
    assert one == b'{"models":[{"name":"b:1"}]}'


def test_entries_keep_their_bytes() -> None:
    body = b'{"models": [{"name":"a:1",  "x": 1.50}, {"name":"b:1"}], "more": 1e3}'

    found = changed_list("/api/tags", body, recommend=None, allowed="a:1".__eq__)

    assert b'{"name":"a:1",  "x": 1.50}' in found
    assert json.loads(found)["models"] == [{"name": "a:1", "x": 1.5}]
    assert b'"more":1e3' in found


async def test_roles_cannot_be_listed_by_a_gateway_that_changes_nothing() -> None:
    with pytest.raises(CallerError, match="cannot list roles"):
        async with recording_gateway(roles=True, plain=True):
            pass
