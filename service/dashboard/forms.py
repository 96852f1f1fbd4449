"""Settings as one types them: texts in a form, and what they change.

A form is based on the settings that it was made of. Only what differs from those is
changed; changes by others are shown, and stay unless they were overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from herdbook.core.models.configuration import OPTION, SETTINGS, parse
from herdbook.events.facts import ConfigurationChanged, Setting
from herdbook.projections.roles import CAPABILITY_SETTING
from herdbook.projections.sentences import setting_text

PLAIN: Final = ("num_ctx", "temperature", "keep_alive", "pinned", "override", "notes")
"""Settings with a field of their own."""

ABILITIES: Final = tuple(
    name for name in SETTINGS if name.startswith(CAPABILITY_SETTING)
)
"""Settings that overrule what was detected."""

OPTIONS: Final = tuple(
    name.removeprefix(OPTION) for name in SETTINGS if name.startswith(OPTION)
)
"""The server's other options, by its own names."""

_LINES: Final = "options"

Texts = dict[str, str]
"""Settings by name, each as one types it; one without a value is not among them."""


class Edit(NamedTuple):
    """What a form changes."""

    set: dict[str, Setting]
    unset: list[str]


def texts_of(settings: Mapping[str, Setting]) -> Texts:
    """Return settings as one types them."""
    return {name: setting_text(value) for name, value in settings.items()}


def fields_of(texts: Mapping[str, str]) -> Texts:
    """Return the fields of a form; the other options are lines of one of them."""
    fields = {name: texts.get(name, "") for name in (*PLAIN, *ABILITIES)}
    lines = [
        f"{name.removeprefix(OPTION)}={text}"
        for name, text in sorted(texts.items())
        if name.startswith(OPTION)
    ]
    return fields | {_LINES: "\n".join(lines)}


def read(form: Mapping[str, str]) -> Texts:
    """Return the settings that a form has.

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
    """Return what is changed.

    Args:
        base: The settings that the form was made of, as texts.
        wanted: What it has now.

    Raises:
        InvalidConfigurationError: A setting does not take its value.
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
    """Return what settings were before some changes; the newest comes first."""
    base = dict(settings)
    for change in changes:
        for name in (*change.set, *change.unset):
            base.pop(name, None)
        base |= change.was
    return base


def laid_on(
    base: Mapping[str, str], wanted: Mapping[str, str], current: Mapping[str, str]
) -> Texts:
    """Return what was typed, laid on what others made of the settings meanwhile."""
    names = dict.fromkeys((*base, *wanted, *current))
    texts = {
        name: (wanted if wanted.get(name) != base.get(name) else current).get(name, "")
        for name in names
    }
    return {name: text for name, text in texts.items() if text}
