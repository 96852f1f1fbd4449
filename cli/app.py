"""The frame that every verb stands in: global options, the loop, broken pipes.

A verb is an async function that takes the invocation and its own options. The
global options are accepted before the verb and after it; what stands after it
wins.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from importlib import metadata
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec

import typer

from herdbook.cli.errors import DONE, OutputError, StoppedError
from herdbook.cli.invocation import Invocation
from herdbook.events.file_descriptors import is_exhausted

Own = ParamSpec("Own")
Verb = Callable[Concatenate[Invocation, Own], Coroutine[None, None, int | None]]

app = typer.Typer(
    name="herdbook",
    help="The register of an Ollama server's models.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)
"""The command; the modules with verbs add theirs to it."""

LOOK = "Look"
ACT = "Act"
PAST = "Look back"
SERVE = "Serve"
TRY = "Try"

VERBS = (
    *("ls", "show", "recommend", "suggest", "refresh", "node", "doctor", "graph"),
    *("pull", "load", "unload", "use", "config", "rm", "apply", "freeze"),
    *("history", "log", "as-of", "diff", "why", "verify", "backup", "restore"),
    *("serve", "token"),
    *("sandbox", "demo"),
)
"""Every verb, as the help shows them."""

_PANEL = "Global options, before or after the verb"


def _global_options(
    *,
    db: Annotated[
        Path | None,
        typer.Option(
            help="The log's file [HERDBOOK_DB; else herd.db among the user's data].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    ollama: Annotated[
        str | None,
        typer.Option(
            help="The server's address [OLLAMA_HOST; else 127.0.0.1:11434].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            help="Our name for the server [HERDBOOK_NODE; else local].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            help="Your own catalogue of known models [HERDBOOK_CATALOGUE; else "
            "catalogue.toml among the user's configuration].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Answer in JSON.", rich_help_panel=_PANEL)
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Tell causes, the last event, and what goes on.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
) -> None:
    """Stand as the signature that the group and every verb share."""


_GLOBALS = tuple(inspect.signature(_global_options, eval_str=True).parameters.values())
_CONTEXT = inspect.Parameter(
    "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
)


def verb(name: str, panel: str) -> Callable[[Verb[Own]], Verb[Own]]:
    """Add an async function to the command, with the global options."""

    def add(function: Verb[Own]) -> Verb[Own]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def call(context: typer.Context, **given: object) -> int:
            invocation = context.ensure_object(Invocation)
            _take(invocation, given)
            invocation.verb = name
            return _run(invocation, function, given)

        _give_signature(call, [_CONTEXT, *own, *_GLOBALS])
        app.command(name, help=inspect.getdoc(function), rich_help_panel=panel)(call)
        return function

    return add


def in_order() -> None:
    """Sort the verbs as the help shows them."""
    app.registered_commands.sort(key=lambda command: VERBS.index(str(command.name)))


def _take(invocation: Invocation, given: dict[str, object]) -> None:
    """Move the global options from what was given to the invocation."""
    for option in _GLOBALS:
        value = given.pop(option.name)
        if value != option.default:
            setattr(invocation, option.name, value)


def _give_signature(
    function: Callable[..., object], parameters: list[inspect.Parameter]
) -> None:
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    keyword_only = [
        p if p is _CONTEXT else p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in parameters
    ]
    # Typer reads the signature, as inspect documents it.
    function.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]


def _run(invocation: Invocation, function: Verb[...], given: dict[str, object]) -> int:
    try:
        code = asyncio.run(_terminable(function(invocation, **given)))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough; what is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if is_exhausted(error):
            raise  # our own lack, which is told as that
        raise OutputError(
            "the answer", f"cannot be written: {error.strerror}"
        ) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise StoppedError(
            invocation.verb,
            "was stopped",
            "What was recorded stays; nothing is half recorded",
        ) from None
    return code or DONE


async def _terminable(work: Coroutine[None, None, int | None]) -> int | None:
    """Let SIGTERM end a verb as Ctrl-C does: what is under way is ended in order."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _before_the_verb(context: typer.Context, **given: object) -> None:
    """Take the global options that stand before the verb."""
    del given["version"]  # its callback has said all
    _take(context.ensure_object(Invocation), given)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"herdbook {metadata.version('herdbook')}")
        raise typer.Exit


def _version_option(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Say which it is."
        ),
    ] = False,
) -> None:
    """Stand as the signature of what the group alone takes."""


_OF_GROUP = inspect.signature(_version_option, eval_str=True).parameters.values()
_give_signature(_before_the_verb, [_CONTEXT, *_GLOBALS, *_OF_GROUP])
app.callback()(_before_the_verb)
