"""Register verbs and run them: global options, event loop, signals, broken pipes.

A verb is an async function that takes the invocation and its own options. Global
options are accepted before and after the verb; the later one wins.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, ClassVar, Concatenate, ParamSpec

import typer
from typer.core import TyperGroup

from herdbook.cli.completion import complete_file, complete_node
from herdbook.cli.errors import DONE, StoppedError, file_failure
from herdbook.cli.invocation import Invocation
from herdbook.cli.version import version_text
from herdbook.events.shared.file_descriptors import is_exhausted

Own = ParamSpec("Own")
Verb = Callable[Concatenate[Invocation, Own], Coroutine[None, None, int | None]]


class VerbGroup(TyperGroup):
    """Lists verbs and groups of verbs in one order.

    Attributes:
        order: The names in the order of the help.
    """

    order: ClassVar[Sequence[str]] = ()

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # not exported
        """Return the names of the verbs, in order."""
        return sorted(super().list_commands(ctx), key=self.order.index)


app = typer.Typer(
    name="herdbook",
    cls=VerbGroup,
    help="Manage the models of an Ollama server, with a full history.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)
"""The command. Each module in ``herdbook.cli.commands`` adds its verbs."""

INSPECT = "Inspect"
CHANGE = "Change"
HISTORY = "History"
SERVE = "Serve"
TRY = "Try it"

_PANEL = "Global options, before or after the verb"


def _global_options(
    *,
    db: Annotated[
        str | None,
        typer.Option(
            metavar="LOG",
            help="Log: a file or postgresql://USER@HOST/DATABASE [env HERDBOOK_DB; "
            "default herd.db in the user data directory].",
            autocompletion=complete_file,
            rich_help_panel=_PANEL,
        ),
    ] = None,
    ollama: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the server [env OLLAMA_HOST; default: the one in the log, "
            "or 127.0.0.1:11434].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Use only this node of the log [env HERDBOOK_NODE; default all].",
            autocompletion=complete_node,
            rich_help_panel=_PANEL,
        ),
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own catalogue of models [env HERDBOOK_CATALOGUE; default "
            "catalogue.toml in the user configuration directory].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_PANEL)
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Show causes, the last event and debug messages.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
) -> None:
    """Define the options of the group and of every verb; only its signature is used."""


_GLOBALS = tuple(inspect.signature(_global_options, eval_str=True).parameters.values())

GLOBALS_WITH_VALUE = frozenset(
    f"--{option.name}" for option in _GLOBALS if option.default is None
)
"""The global options that are followed by a value."""

_CONTEXT = inspect.Parameter(
    "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
)


def verb(
    name: str,
    panel: str = "Commands",
    *,
    fast: bool = False,
    group: typer.Typer | None = None,
    hidden: bool = False,
) -> Callable[[Verb[Own]], Verb[Own]]:
    """Register an async function as a verb, with the global options.

    Args:
        name: The verb.
        panel: Its group in the help.
        fast: Whether to run it on uvloop, if that is installed.
        group: The group of verbs that it belongs to; None for none.
        hidden: Whether to leave it out of the help.
    """
    loop_factory = _fastest_loop if fast else None
    full_name = name if group is None else f"{group.info.name} {name}"

    def add(function: Verb[Own]) -> Verb[Own]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def call(context: typer.Context, **given: object) -> int:
            invocation = context.ensure_object(Invocation)
            _apply_globals(invocation, given)
            invocation.verb = full_name
            return _run(invocation, function, given, loop_factory)

        _give_signature(call, [_CONTEXT, *own, *_GLOBALS])
        command = (group or app).command(
            name, help=inspect.getdoc(function), rich_help_panel=panel, hidden=hidden
        )
        command(call)
        return function

    return add


def verb_group(name: str, panel: str) -> Callable[[Verb[[]]], typer.Typer]:
    """Register a group of verbs, with a function that runs without any of them.

    Args:
        name: The first word of the verbs.
        panel: Its group in the help.
    """

    def add(function: Verb[[]]) -> typer.Typer:
        group = typer.Typer(name=name, help=inspect.getdoc(function))

        def call(context: typer.Context, **given: object) -> int:
            invocation = context.ensure_object(Invocation)
            _apply_globals(invocation, given)
            invocation.verb = name
            if context.invoked_subcommand is not None:
                return DONE
            return _run(invocation, function, given, None)

        _give_signature(call, [_CONTEXT, *_GLOBALS])
        group.callback(invoke_without_command=True)(call)
        app.add_typer(group, rich_help_panel=panel)
        return group

    return add


def _apply_globals(invocation: Invocation, given: dict[str, object]) -> None:
    """Move the global options from the parsed arguments to the invocation."""
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
    # Typer reads parameters through inspect.signature, which honours this.
    function.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]


def _fastest_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: of uvloop, or asyncio's own if that is missing."""
    try:
        import uvloop  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _run(
    invocation: Invocation,
    function: Verb[...],
    given: dict[str, object],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> int:
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            code = runner.run(_terminable(function(invocation, **given)))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe. Without this, flushing at exit would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if is_exhausted(error):
            raise  # reported as too many open files, not as a failed write
        raise file_failure(error) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise StoppedError(
            invocation.verb,
            "was stopped",
            "Recorded events are kept",
        ) from None
    return code or DONE


async def _terminable(work: Coroutine[None, None, int | None]) -> int | None:
    """Let SIGTERM cancel a verb like Ctrl-C, so that it cleans up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    # A handler of the loop would run later, and not at all if the verb, which may
    # import for seconds first, has replaced it by then.
    def cancel(_: int, __: FrameType | None) -> None:
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        return await work
    finally:
        signal.signal(signal.SIGTERM, before)


def _before_the_verb(context: typer.Context, **given: object) -> None:
    """Apply the global options that precede the verb."""
    del given["version"]  # handled by its callback
    _apply_globals(context.ensure_object(Invocation), given)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_text())
        raise typer.Exit


def _version_option(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Define the options of the group alone; only its signature is used."""


_OF_GROUP = inspect.signature(_version_option, eval_str=True).parameters.values()
_give_signature(_before_the_verb, [_CONTEXT, *_GLOBALS, *_OF_GROUP])
app.callback()(_before_the_verb)
