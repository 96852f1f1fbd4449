"""The settings of a model: their names, valid values, and the request options.

Settings are flat: ``num_ctx``, ``temperature``, ``keep_alive``, ``pinned``,
``notes``, ``options.<name>`` for the server's other options, and
``capability.<name>`` to override detected capabilities. Values are checked before
they are recorded, so that the server accepts every value in the log.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import NamedTuple, TypeAlias, TypeGuard

import msgspec

from herdbook.core.errors import InvalidConfigurationError
from herdbook.events.errors import in_line
from herdbook.events.facts import ConfigurationChanged, Setting
from herdbook.projections.roles import CAPABILITY_SETTING

KeepAlive: TypeAlias = str | int | float
"""Seconds as a number, negative for no end; or a Go duration, such as ``1h30m``."""

OPTION = "options."
"""The prefix of the server's other options."""

LONGEST_KEEP_ALIVE_S = (2**63 - 1) / 1e9
"""The server's limit of 64 bits of nanoseconds. A longer time overflows, and the model
unloads immediately (recorded from a real server)."""

_LARGEST = 2**31 - 1
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # the micro sign
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_SECONDS)})"
_DURATION = re.compile(rf"[+-]?(?:{_PART})+")


class ModelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options to send with a request for a model.

    Attributes:
        options: The options of the request.
        keep_alive: How long the model stays in memory; None for no change.
    """

    options: dict[str, Setting] = {}
    keep_alive: KeepAlive | None = None


class _Rule(NamedTuple):
    """The rule for a setting's values.

    Attributes:
        wants: The valid values, as text.
        accepts: Returns whether a value is valid.
        read: Parses a value from the command line.
    """

    wants: str
    accepts: Callable[[Setting], bool]
    read: Callable[[str], Setting]


def keep_alive_seconds(value: Setting) -> float | None:
    """Return a keep-alive in seconds; None if the server would not accept it.

    A number is seconds. A text is a Go duration, with a unit for every number:
    ``5m``, ``1h30m``, ``-1s``. Only ``"0"`` needs no unit.
    """
    if isinstance(value, str):
        seconds = _duration(value)
    elif _is_integer(value) or isinstance(value, float):
        seconds = value
    else:
        return None
    fits = seconds is not None and abs(seconds) < LONGEST_KEEP_ALIVE_S
    return float(seconds) if seconds is not None and fits else None


def _duration(text: str) -> float | None:
    if text.lstrip("+-") == "0" and len(text) <= 2:
        return 0.0
    if not _DURATION.fullmatch(text):
        return None
    seconds = math.fsum(
        float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, text)
    )
    return -seconds if text.startswith("-") else seconds


def _is_integer(value: Setting) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(low: int, high: int = _LARGEST) -> _Rule:
    return _Rule(
        f"a whole number from {low:,} to {high:,}",
        lambda value: _is_integer(value) and low <= value <= high,
        lambda text: _read(int, text),
    )


def _tokens(low: int) -> _Rule:
    return _Rule(
        f"a whole number of at least {low}, such as 8192 or 8k",
        _integer(low).accepts,
        _read_tokens,
    )


def _read_tokens(text: str) -> Setting:
    """Parse a number of tokens, with k for 1,024 and m for 1,048,576."""
    if found := re.fullmatch(r"([0-9]{1,7})(?:\.([0-9]))? ?(k|m)i?", text.lower()):
        tenths = int(found[1]) * 10 + int(found[2] or 0)
        return tenths * (1024 if found[3] == "k" else 1024**2) // 10
    if re.fullmatch(r"[0-9]{1,3}([, ][0-9]{3})+", text):
        return int(re.sub("[, ]", "", text))
    return _read(int, text)


def _number(low: float, high: float) -> _Rule:
    return _Rule(
        f"a number from {low:g} to {high:g}",
        lambda value: (
            (_is_integer(value) or isinstance(value, float)) and low <= value <= high
        ),
        _read_number,
    )


def _read(kind: Callable[[str], Setting], text: str) -> Setting:
    """Convert a text; return it unchanged, to be rejected, if that fails."""
    try:
        return kind(text)
    except ValueError:
        return text


def _read_number(text: str) -> Setting:
    number = _read(int, text)
    return _read(float, text) if number is text else number


_WORDS = {
    "d": "h",
    "day": "h",
    "hour": "h",
    "hr": "h",
    "minute": "m",
    "min": "m",
    "second": "s",
    "sec": "s",
}
"""The server's units by the words that people type; a day is 24 of them."""


def _read_keep_alive(text: str) -> Setting:
    """Parse a number, a duration such as ``5 min`` or ``2d``, or ``forever``."""
    plain = text.strip().lower()
    if plain in {"forever", "always", "infinite"}:
        return -1
    found = re.fullmatch(r"([0-9]{1,6}) ?([a-z]+?)s?", plain)
    if found and found[2] in _WORDS:
        number = int(found[1]) * (24 if found[2].startswith("d") else 1)
        return f"{number}{_WORDS[found[2]]}"
    return _read_number(plain.replace(" ", ""))


def _read_truth(text: str) -> Setting:
    words: dict[str, Setting] = {"true": True, "yes": True, "false": False, "no": False}
    return words.get(text.lower(), text)


def _read_texts(text: str) -> Setting:
    if not text.startswith("["):
        return [text]
    try:
        return [*msgspec.json.decode(text, type=list[str])]
    except msgspec.MsgspecError:
        return text


_TRUTH = _Rule("true or false", lambda value: isinstance(value, bool), _read_truth)
_TEXT = _Rule(
    "text of at most 2,000 characters",
    lambda value: isinstance(value, str) and len(value) <= 2000,
    str,
)
_TEXTS = _Rule(
    'a list of strings, such as ["</s>"]',
    lambda value: (
        isinstance(value, list) and all(isinstance(text, str) for text in value)
    ),
    _read_texts,
)
_KEEP_ALIVE = _Rule(
    "a number of seconds, a negative number to keep the model loaded, or a duration "
    "such as 5m or 1h30m",
    lambda value: keep_alive_seconds(value) is not None,
    _read_keep_alive,
)

# The options of the server's api/types.go (Options and Runner).
_OPTIONS: dict[str, _Rule] = {
    "draft_num_predict": _integer(0),
    "frequency_penalty": _number(-2, 2),
    "main_gpu": _integer(0),
    "min_p": _number(0, 1),
    "num_batch": _integer(1),
    "num_gpu": _integer(-1),
    "num_keep": _integer(-1),
    "num_predict": _tokens(-2),
    "num_thread": _integer(0),
    "presence_penalty": _number(-2, 2),
    "repeat_last_n": _integer(-1),
    "repeat_penalty": _number(0, 10),
    "seed": _integer(-_LARGEST),
    "stop": _TEXTS,
    "top_k": _integer(0),
    "top_p": _number(0, 1),
    "typical_p": _number(0, 1),
    "use_mmap": _TRUTH,
}
_OWN_OPTIONS = ("num_ctx", "temperature")  # options without the prefix
_CAPABILITIES = (
    "audio",
    "coding",
    "completion",
    "embedding",
    "image",
    "insert",
    "json",
    "thinking",
    "tools",
    "vision",
)
_RULES: dict[str, _Rule] = {
    "num_ctx": _tokens(4),  # the server makes 4 of anything less
    "temperature": _number(0, 2),
    "keep_alive": _KEEP_ALIVE,
    "pinned": _TRUTH,
    "override": _TRUTH,
    "notes": _TEXT,
    **{f"{OPTION}{name}": rule for name, rule in _OPTIONS.items()},
    **{f"{CAPABILITY_SETTING}{name}": _TRUTH for name in _CAPABILITIES},
}

SETTINGS: dict[str, str] = {name: rule.wants for name, rule in _RULES.items()}
"""All settings, with a description of their values."""


def check(name: str, value: Setting) -> None:
    """Check a setting before it is recorded.

    Raises:
        InvalidConfigurationError: The setting does not exist, or the value is not
            valid.
    """
    rule = _rule(name)
    if not rule.accepts(value):
        raise InvalidConfigurationError(
            name, f"must be {rule.wants}, not {in_line(repr(value), 80)}"
        )


def check_load(options: Mapping[str, Setting], keep_alive: KeepAlive | None) -> None:
    """Check the options of a load before the request.

    Raises:
        InvalidConfigurationError: An option does not exist, its value is not valid,
            or the keep-alive is 0, which unloads.
    """
    for name, value in options.items():
        check(name if name in _OWN_OPTIONS else f"{OPTION}{name}", value)
    if keep_alive is None:
        return
    check("keep_alive", keep_alive)
    if keep_alive_seconds(keep_alive) == 0:
        raise InvalidConfigurationError(
            f"keep_alive={keep_alive}",
            "would unload the model immediately",
            "Use a longer time, or -1 to keep it loaded",
        )


def parse(text: str) -> tuple[str, Setting]:
    """Parse a ``name=value`` of the command line.

    Raises:
        InvalidConfigurationError: There is no ``=``, or as ``check`` does.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidConfigurationError(
            f"setting {in_line(text, 80)!r}",
            "has no value",
            f"Write it as {in_line(text, 80) if text in _RULES else 'name'}=value",
        )
    name = name.strip()
    if not name:
        raise InvalidConfigurationError(
            f"setting {in_line(text, 80)!r}", "has no name", "Write it as name=value"
        )
    setting = _rule(name).read(value.strip())
    check(name, setting)
    return name, setting


def _rule(name: str) -> _Rule:
    rule = _RULES.get(name)
    if rule is None:
        raise InvalidConfigurationError(
            f"setting {in_line(name, 80)!r}", "does not exist", _nearest(name)
        )
    return rule


def _nearest(name: str) -> str:
    """Return a remedy that suggests the setting with the most similar name."""
    bare = name.removeprefix(OPTION)
    if bare in _RULES:
        return f"Did you mean {bare!r}?"
    nearest = get_close_matches(f"{OPTION}{name}", _RULES, n=1, cutoff=0.8)
    nearest = get_close_matches(name, _RULES, n=1, cutoff=0.8) or nearest
    if f"{OPTION}{name}" in _RULES:
        nearest = [f"{OPTION}{name}"]
    if nearest:
        return f"Did you mean {nearest[0]!r}?"
    plain = ", ".join(rule for rule in _RULES if "." not in rule)
    return f"The settings are {plain}, options.<name> and capability.<name>"


def change(
    current: Mapping[str, Setting],
    set: Mapping[str, Setting],  # noqa: A002 - the fact's own word
    unset: Collection[str] = (),
    note: str = "",
) -> ConfigurationChanged | None:
    """Return the fact to record for a change of settings; None if nothing changes.

    Args:
        current: The current settings.
        set: Settings with their new values.
        unset: Settings to remove.
        note: The user's reason.

    Raises:
        InvalidConfigurationError: A setting does not exist, a value is not valid, or
            a setting is both set and unset.
    """
    for name, value in set.items():
        check(name, value)
    for name in unset:
        if name in set:
            raise InvalidConfigurationError(
                f"setting {name}",
                "is both set and unset",
                "Use one of the two",
            )
        if name not in current:
            _rule(name)
    new = {n: v for n, v in set.items() if n not in current or _differ(current[n], v)}
    gone = tuple(sorted({name for name in unset if name in current}))
    if not new and not gone:
        return None
    was = {name: current[name] for name in (*new, *gone) if name in current}
    return ConfigurationChanged(set=new, unset=gone, was=was, note=note)


def _differ(one: Setting, other: Setting) -> bool:
    """Return whether two values differ in the log, where 1, 1.0 and true do."""
    return msgspec.json.encode(one) != msgspec.json.encode(other)


def options_for(
    settings: Mapping[str, Setting], *, temperature: float | None = None
) -> ModelOptions:
    """Return the options for a request: configured, else recommended.

    Args:
        settings: The model's settings.
        temperature: The recommended temperature, if known.
    """
    options: dict[str, Setting] = {}
    if temperature is not None:
        options["temperature"] = temperature
    for name, value in settings.items():
        if name in _OWN_OPTIONS or name.startswith(OPTION):
            options[name.removeprefix(OPTION)] = value
    keep_alive = settings.get("keep_alive")
    assert keep_alive is None or isinstance(keep_alive, str | int | float)
    return ModelOptions(
        options={name: options[name] for name in sorted(options)},
        keep_alive=keep_alive,
    )
