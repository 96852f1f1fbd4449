"""The settings editor: form fields, changes, and concurrent changes."""

from __future__ import annotations

import pytest

from herdbook.core import InvalidConfigurationError
from herdbook.core.models.configuration import SETTINGS
from herdbook.events.facts import ConfigurationChanged, Setting
from herdbook.service.dashboard import forms as editing

SETTINGS_IN_FORCE: dict[str, Setting] = {
    "num_ctx": 8192,
    "pinned": True,
    "notes": "two\nlines",
    "options.stop": ["</s>", "x y"],
    "options.top_k": 40,
    "capability.tools": False,
}


def test_unchanged_form_changes_nothing() -> None:
    texts = editing.texts_of(SETTINGS_IN_FORCE)
    form = editing.fields_of(texts)
    sent = {name: text.replace("\n", "\r\n") for name, text in form.items()}

    assert editing.edit_of(texts, editing.read(sent)) == ({}, [])


def test_form_has_a_field_for_every_setting() -> None:
    fields = editing.fields_of({})

    own = {name for name in SETTINGS if not name.startswith("options.")}
    assert set(fields) == own | {"options"}
    assert set(editing.OPTIONS) == {
        name.removeprefix("options.") for name in SETTINGS if name not in own
    }


def test_filled_fields_are_set_and_emptied_ones_unset() -> None:
    texts = editing.texts_of(SETTINGS_IN_FORCE)
    form = editing.fields_of(texts) | {
        "num_ctx": " 16384 ",
        "temperature": "0.2",
        "pinned": "",
        "options": 'stop=["</s>", "x y"]\n\noptions.top_p=0.9',
    }

    edit = editing.edit_of(texts, editing.read(form))

    assert edit.set == {"num_ctx": 16384, "temperature": 0.2, "options.top_p": 0.9}
    assert sorted(edit.unset) == ["options.top_k", "pinned"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("num_ctx", "viele"),
        ("temperature", "9"),
        ("options", "top_k"),
        ("options", "nosuch=1"),
        ("notes", "x" * 2001),
    ],
)
def test_invalid_input_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidConfigurationError):
        editing.edit_of({}, editing.read({field: text}))


def test_changes_are_undone_from_the_newest() -> None:
    newest = ConfigurationChanged(set={"num_ctx": 3}, was={"num_ctx": 2})
    older = ConfigurationChanged(
        set={"num_ctx": 2}, unset=("pinned",), was={"num_ctx": 1, "pinned": True}
    )

    assert editing.before({"num_ctx": 3}, [newest, older]) == {
        "num_ctx": 1,
        "pinned": True,
    }


def test_input_is_merged_with_changes_of_others() -> None:
    base = {"num_ctx": "1", "notes": "a", "pinned": "true"}
    wanted = {"num_ctx": "2", "notes": "a", "temperature": "1"}
    current = {"num_ctx": "3", "notes": "b", "keep_alive": "5m", "pinned": "true"}

    assert editing.laid_on(base, wanted, current) == {
        "num_ctx": "2",
        "notes": "b",
        "temperature": "1",
        "keep_alive": "5m",
    }
