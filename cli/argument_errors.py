"""Plain messages for arguments that Typer refuses.

Typer's own messages speak of its types: "'x' is not a valid int range". It exports none
of the classes of these errors, so they are recognized by their texts.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from herdbook.core.errors.suggestions import did_you_mean

# As texts, which ``re`` compiles and keeps when they are first needed.
_INVALID = r"Invalid value for '([^']+)': (.+)"
_NOT_A_NUMBER = r"('.*') is not a valid (int|float)\w*(?: range)?"
_OUT_OF_RANGE = r"(\S+) is not in the range (?:(\S+?)<=)?x(?:([<>])=(\S+))?"
_NOT_A_CHOICE = r"'(.*)' is not one of (.+)"
_NO_OPTION = r"No such option: (\S+)(?: \(Possible options: (.+)\))?"
_NO_COMMAND = r"No such command '(.*?)'\.?(?: Did you mean (.+)\?)?"
_EXTRA = r"Got unexpected extra arguments?(?:\(s\))? \((.+)\)"

OTHER_WORDS = {
    "herdbook": {
        **dict.fromkeys(("list", "models", "status"), "ls"),
        **dict.fromkeys(("delete", "del", "remove", "uninstall"), "rm"),
        **dict.fromkeys(("get", "download", "install", "add"), "pull"),
        **dict.fromkeys(("run", "start", "preload"), "load"),
        **dict.fromkeys(("stop", "evict"), "unload"),
        **dict.fromkeys(("info", "inspect", "describe", "details"), "show"),
        **dict.fromkeys(("set", "settings", "configure", "options"), "config"),
        **dict.fromkeys(("search", "find", "browse"), "suggest"),
        **dict.fromkeys(("best", "choose", "which"), "recommend"),
        **dict.fromkeys(("loaded", "running", "memory"), "ps"),
        **dict.fromkeys(("who", "audit", "events"), "history"),
        **dict.fromkeys(("clean", "cleanup", "prune", "space"), "free"),
        **dict.fromkeys(("tokens", "auth", "user", "users"), "token"),
        **dict.fromkeys(("nodes", "server", "servers"), "node"),
        **dict.fromkeys(("check", "health"), "doctor"),
        **dict.fromkeys(("update", "upgrade"), "pull"),
        "version": "--version",
        "help": "--help",
    },
    "herdbook node": {
        **dict.fromkeys(("delete", "del", "rm"), "remove"),
        **dict.fromkeys(("ls", "show", "status"), "list"),
        **dict.fromkeys(("new", "create"), "add"),
        **dict.fromkeys(("set", "config", "settings", "update"), "configure"),
    },
    "herdbook ls": {
        **dict.fromkeys(("--capability", "--capabilities", "--supports"), "--can"),
        "--tools": "--can tools",
        "--loaded": "--state loaded",
    },
    "herdbook token": {
        "ls": "list",
        **dict.fromkeys(("rm", "del", "delete", "remove"), "revoke"),
        "--read-only": "--role read",
        "--admin": "--role admin",
    },
}
"""Commands and options that other programs have, or people expect, and ours."""


def plain_message(message: str, command: str = "herdbook") -> str:
    """Return a message of Typer in plain English, without a full stop at its end.

    Args:
        message: The message.
        command: The command that was called, without its arguments.
    """
    ours = OTHER_WORDS.get(command, {})
    text = " ".join(message.split()).rstrip(".")
    if found := re.fullmatch(_INVALID, text):
        return _value_message(*found.groups()) or text
    if found := re.fullmatch(_NO_OPTION, text):
        # Typer sorts the options by name, not by how near they are.
        nearest = get_close_matches(found[1], (found[2] or "").split(", "), n=1)
        near = ours.get(found[1]) or next(iter(nearest), None)
        return f"No such option '{found[1]}'" + (
            f". Did you mean '{near}'?" if near else ""
        )
    if found := re.fullmatch(_NO_COMMAND, text):
        near = f"'{ours[found[1]]}'" if found[1] in ours else found[2]
        return f"No such command '{found[1]}'" + (
            f". Did you mean {near.replace(', ', ' or ')}?" if near else ""
        )
    if found := re.fullmatch(_EXTRA, text):
        return f"Unexpected argument '{found[1]}'"
    return text


def _value_message(name: str, reason: str) -> str:
    """Return what is wrong with a value; empty if the reason is not recognized."""
    if found := re.fullmatch(_NOT_A_NUMBER, reason):
        kind = "a whole number" if found[2] == "int" else "a number"
        return f"{name} must be {kind}, not {found[1]}"
    if found := re.fullmatch(_OUT_OF_RANGE, reason):
        value, low, sign, bound = found.groups()
        if low:
            return f"{name} must be from {low} to {bound}, not {value}"
        least = "at least" if sign == ">" else "at most"
        return f"{name} must be {least} {bound}, not {value}"
    if found := re.fullmatch(_NOT_A_CHOICE, reason):
        known = [each.strip("'") for each in found[2].split(", ")]
        near = did_you_mean(found[1], known)
        if name.startswith("-"):
            problem = f"{name} must be one of {', '.join(known)}, not '{found[1]}'"
            return f"{problem}. {near}".rstrip(". ")
        return f"Unknown argument '{found[1]}'. {near}Known: {', '.join(known)}"
    return ""
