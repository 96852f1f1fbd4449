"""The settings form: texts as typed, and the changes that they mean.

A form is based on the settings at the time when it was rendered. Only what the user
edited is changed; changes by others are shown, and stay unless the user overwrites
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from herdbook.core.models.configuration import OPTION, SETTINGS, parse
from herdbook.events.facts import ConfigurationChanged, Setting
from herdbook.projections.roles import CAPABILITY_SETTING
from herdbook.projections.sentences import setting_text

PLAIN: Final = ("num_ctx", "temperature", "keep_alive", "pinned", "override", "notes")
"""Settings with their own field."""

ABILITIES: Final = tuple(
    name for name in SETTINGS if name.startswith(CAPABILITY_SETTING)
)
"""Settings that override detected capabilities."""

OPTIONS: Final = tuple(
    name.removeprefix(OPTION) for name in SETTINGS if name.startswith(OPTION)
)
"""Other options of the server, by its own names; for the template."""

_LINES: Final = "options"

Texts = dict[str, str]
"""Settings by name, each as typed; settings without a value are missing."""


class Edit(NamedTuple):
    """The changes of a form."""

    set: dict[str, Setting]
    unset: list[str]


def texts_of(settings: Mapping[str, Setting]) -> Texts:
    """Return settings as a user types them."""
    return {name: setting_text(value) for name, value in settings.items()}


def fields_of(texts: Mapping[str, str]) -> Texts:
    """Return the fields of a form; the other options are lines of one field."""
    fields = {name: texts.get(name, "") for name in (*PLAIN, *ABILITIES)}
    lines = [
        f"{name.removeprefix(OPTION)}={text}"
        for name, text in sorted(texts.items())
        if name.startswith(OPTION)
    ]
    return fields | {_LINES: "\n".join(lines)}


def read(form: Mapping[str, str]) -> Texts:
    """Return the settings of a submitted form.

    Raises:
        InvalidConfigurationError: A line of the other options has no value.
    """
    texts = {
        name: " ".join(form.get(name, "").splitlines()).strip()
        if name != "notes"
        else form.get(name, "").replace("\r\n", "\n").strip()
        for name in (*PLAIN, *ABILITIES)
    }
    texts |= dict(_options(form.get(_LINES, "").splitlines()))
    return {name: text for name, text in texts.items() if text}


def _options(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.strip():
            text = f"{OPTION}{line.strip().removeprefix(OPTION)}"
            parse(text)
            name, _, value = text.partition("=")
            yield name.strip(), value.strip()


def edit_of(base: Mapping[str, str], wanted: Mapping[str, str]) -> Edit:
    """Return the changes.

    Args:
        base: The settings when the form was rendered, as texts.
        wanted: The settings in the submitted form.

    Raises:
        InvalidConfigurationError: A value is not valid for its setting.
    """
    changed = [
        f"{name}={text}" for name, text in wanted.items() if base.get(name) != text
    ]
    values = dict(parse(each) for each in changed)
    return Edit(
        {
            name: value
            for name, value in values.items()
            if base.get(name) != setting_text(value)
        },
        [name for name in base if name not in wanted],
    )


def before(
    settings: Mapping[str, Setting], changes: Iterable[ConfigurationChanged]
) -> dict[str, Setting]:
    """Return the settings before some changes, which are given newest first."""
    base = dict(settings)
    for change in changes:
        for name in (*change.set, *change.unset):
            base.pop(name, None)
        base |= change.was
    return base


def laid_on(
    base: Mapping[str, str], wanted: Mapping[str, str], current: Mapping[str, str]
) -> Texts:
    """Return the user's edits, applied to the settings as others changed them."""
    names = dict.fromkeys((*base, *wanted, *current))
    texts = {
        name: (wanted if wanted.get(name) != base.get(name) else current).get(name, "")
        for name in names
    }
    return {name: text for name, text in texts.items() if text}
