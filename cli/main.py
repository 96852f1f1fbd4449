"""Run one call of the command and turn every failure into one line on stderr.

A bug is reported in one line too; ``--verbose`` adds the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache

import typer

from herdbook.cli.app import app
from herdbook.cli.argument_errors import plain_message
from herdbook.cli.bash_words import joined_at_colons
from herdbook.cli.commands import VERBS, register
from herdbook.cli.encoding import replace_unencodable
from herdbook.cli.errors import UsageError, file_failure, report, shape, unexpected
from herdbook.cli.invocation import Invocation
from herdbook.cli.logging import configure
from herdbook.core import HerdbookError
from herdbook.events.shared.file_descriptors import is_exhausted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see ``herdbook.cli.run``."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    given = given or ["--help"]
    replace_unencodable(sys.stdout, sys.stderr)
    invocation = Invocation()
    configure(verbose="--verbose" in given)
    register(given)
    try:
        command = _command(len(app.registered_commands), len(app.registered_groups))
        with joined_at_colons():
            code = command(
                given, prog_name="herdbook", obj=invocation, standalone_mode=False
            )
    except typer.TyperException as error:
        return _fail(_usage(error, given), error, invocation, given)
    except HerdbookError as error:
        return _fail(error, error, invocation, given)
    except OSError as error:  # a write of the help or the version
        known = None if is_exhausted(error) else file_failure(error)
        return _fail(known, error, invocation, given)
    except Exception as error:  # noqa: BLE001 - the last resort: no tracebacks
        return _fail(None, error, invocation, given)
    _write_position(invocation)
    return int(code or 0)


@cache
def _command(verbs: int, groups: int) -> Callable[..., int | None]:  # noqa: ARG001
    """Return the command with its verbs, of which a later call may import more.

    Making all of them takes 0.1 s, which a program that runs several commands saves.
    """
    return typer.main.get_command(app)


def _usage(error: typer.TyperException, given: Sequence[str]) -> UsageError:
    words = ["herdbook", *(word for word in given if word in VERBS)][:2]
    command = " ".join(words)
    message = plain_message(error.format_message(), command)
    return UsageError("", message, f"Try: {command} --help")


def _fail(
    known: HerdbookError | None,
    error: Exception,
    invocation: Invocation,
    given: Sequence[str],
) -> int:
    code = report(
        unexpected(error) if known is None else shape(known),
        error,
        sys.stderr,
        as_json=invocation.json or "--json" in given,
        verbose=invocation.verbose or "--verbose" in given,
    )
    _write_position(invocation)
    return code


def _write_position(invocation: Invocation) -> None:
    if invocation.position is not None and not invocation.json:
        sys.stderr.write(f"  last event: #{invocation.position}\n")
