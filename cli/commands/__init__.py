"""The verbs of the command, in the order of the help, and the module of each.

A module is imported when its verb is called, so that a verb loads only what it uses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from herdbook.cli.app import GLOBALS_WITH_VALUE, VerbGroup

MODULES = {
    "ls": "models.ls",
    "ps": "models.ps",
    "show": "models.show",
    "recommend": "models.recommend",
    "suggest": "models.recommend",
    "usage": "log.usage",
    "refresh": "servers.refresh",
    "node": "servers.node",
    "doctor": "servers.doctor",
    "graph": "models.graph",
    "pull": "models.pull",
    "load": "models.load",
    "unload": "models.load",
    "cancel": "models.cancel",
    "use": "models.use",
    "config": "models.config",
    "rm": "models.rm",
    "free": "models.free",
    "apply": "models.apply",
    "freeze": "models.freeze",
    "history": "log.history",
    "log": "log.log",
    "as-of": "log.history",
    "diff": "log.diff",
    "why": "log.why",
    "verify": "log.verify",
    "backup": "log.backup",
    "restore": "log.backup",
    "export": "log.transfer",
    "import": "log.transfer",
    "copy": "log.copy",
    "archive": "log.archive",
    "anchor": "log.proof",
    "key": "log.proof",
    "prove": "log.proof",
    "prove-consistency": "log.proof",
    "serve": "servers.serve",
    "gateway": "servers.gateway",
    "token": "servers.token",
    "sandbox": "servers.sandbox",
    "demo": "servers.demo",
}
"""The module of each verb, below this package."""

VERBS = tuple(MODULES)
"""Every verb, in the order of the help."""

ALIASES = {"consistent": "prove-consistency"}
"""Earlier names of verbs, which still work and are not in the help."""

VerbGroup.order = (*VERBS, *ALIASES)

_COMPLETION = "_HERDBOOK_COMPLETE"
"""Set by the shell that asks for completions."""


def register(arguments: Sequence[str]) -> None:
    """Import the module of the verb that is called, or all if that is not clear.

    All verbs are needed for the help, for completion and to suggest the nearest one.
    """
    verb = _called_verb(arguments)
    if verb is not None:
        import_module(f"{__name__}.{MODULES[verb]}")
    elif "--version" not in arguments or _COMPLETION in os.environ:
        register_all()


def register_all() -> None:
    """Import every verb."""
    for module in dict.fromkeys(MODULES.values()):
        import_module(f"{__name__}.{module}")


def _called_verb(arguments: Sequence[str]) -> str | None:
    if _COMPLETION in os.environ:
        return None
    words = iter(arguments)
    for word in words:
        if word in GLOBALS_WITH_VALUE:
            next(words, None)
        elif word in {"-h", "--help"}:
            return None  # the help of the command lists every verb
        elif not word.startswith("-"):
            verb = ALIASES.get(word, word)
            return verb if verb in MODULES else None
    return None
