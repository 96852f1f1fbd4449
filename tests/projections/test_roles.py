from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.projections.roles import FAST_CONTEXT, NEEDS, ModelRole, lacking


@pytest.mark.parametrize("role", ModelRole)
@pytest.mark.parametrize("spell", [str, str.upper, str.title])
@pytest.mark.parametrize("join", ["", "-", " ", "_"])
def test_role_is_known_by_its_name_in_any_spelling(
    role: ModelRole, spell: type[str], join: str
) -> None:
    assert ModelRole.parse(spell(role.value.replace("_", join))) is role


@pytest.mark.parametrize("text", ["", "poetry", "general purpose", "-"])
def test_other_names_are_not_roles(text: str) -> None:
    assert ModelRole.parse(text) is None


@given(
    st.sampled_from([role for role in ModelRole if role is not ModelRole.FAST]),
    st.sets(st.sampled_from(["completion", "tools", "coding", "vision", "embedding"])),
)
def test_nothing_is_lacking_where_every_need_is_met(
    role: ModelRole, can: set[str]
) -> None:
    lack = lacking(role, can=can, parameter_count=None, context=FAST_CONTEXT + 1)
    assert (lack is None) == can.issuperset(NEEDS[role])
