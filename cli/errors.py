"""What went wrong, in one line, and the exit code that scripts read.

The table below is the only place that knows exit codes. An error's class decides:
the nearest of its classes that the table has.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import IO

import msgspec

from herdbook.cli.output import clean, escaped
from herdbook.core import (
    BadAnswerError,
    BusyError,
    BusyServerError,
    CallerError,
    ConflictError,
    HerdbookError,
    IllegalTransitionError,
    ModelNotFoundError,
    NodeTimeoutError,
    NodeUnreachableError,
    OperationEndedError,
    ResourceExhaustedError,
)
from herdbook.events.file_descriptors import RAISE_THE_LIMIT, TOO_MANY, is_exhausted

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
BUSY = 4
UNREACHABLE = 5


class UsageError(CallerError):
    """The command was not given as it takes it."""

    code = "usage"


class NothingFoundError(CallerError):
    """What was asked for is not there."""

    code = "not_found"


class StoppedError(HerdbookError):
    """The user ended it with Ctrl-C."""

    code = "stopped"


class OutputError(HerdbookError):
    """The answer could not be written to where it was to go."""

    code = "output"


class NoHomeError(HerdbookError):
    """The directory of the user's own data cannot be used."""

    code = "no_home"


class MissingExtraError(HerdbookError):
    """A part of Herdbook that is not installed was asked for."""

    code = "missing_extra"


EXITS: dict[type[HerdbookError], int] = {
    HerdbookError: FAILED,
    CallerError: USAGE,
    OperationEndedError: FAILED,
    ModelNotFoundError: NOT_FOUND,
    NothingFoundError: NOT_FOUND,
    BusyError: BUSY,
    BusyServerError: BUSY,
    ConflictError: BUSY,
    IllegalTransitionError: BUSY,
    BadAnswerError: UNREACHABLE,
    NodeTimeoutError: UNREACHABLE,
    NodeUnreachableError: UNREACHABLE,
}
"""Exit codes by class of error."""


class ErrorShape(msgspec.Struct, frozen=True, kw_only=True):
    """An error as ``--json`` has it.

    Attributes:
        code: The error's stable word.
        subject: What it is about.
        state: What is wrong with it.
        remedy: What to do; may be empty.
        exit: The exit code.
    """

    code: str
    subject: str
    state: str
    remedy: str
    exit: int


def exit_code(error: HerdbookError) -> int:
    """Return the exit code of an error."""
    return next(EXITS[kind] for kind in type(error).__mro__ if kind in EXITS)


def shape(error: HerdbookError, *, verb: str) -> ErrorShape:
    """Return an error in its parts; what a verb needed is part of its state."""
    state = error.state
    if isinstance(error, ModelNotFoundError):
        state = f"{state}; {verb} needs it present"
    return ErrorShape(
        code=error.code,
        subject=error.subject,
        state=state,
        remedy=error.remedy,
        exit=exit_code(error),
    )


def sentence(told: ErrorShape) -> str:
    """Return an error in one line: what, state, remedy."""
    remedy = f". {told.remedy}" if told.remedy else ""
    text = clean(f"{told.subject} {told.state}".strip() + remedy)
    return f"herdbook: {text}   (exit {told.exit})"


def unexpected(error: Exception) -> ErrorShape:
    """Return what there is to say of an error that nobody foresaw."""
    if is_exhausted(error):
        return ErrorShape(
            code=ResourceExhaustedError.code,
            subject="",
            state=TOO_MANY,
            remedy=RAISE_THE_LIMIT,
            exit=FAILED,
        )
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ErrorShape(
        code="unexpected",
        subject="",
        state=f"unexpected error: {reason}",
        remedy="This is a fault of Herdbook. With --verbose it says where",
        exit=FAILED,
    )


def report(
    told: ErrorShape,
    error: BaseException,
    stream: IO[str],
    *,
    as_json: bool,
    verbose: bool,
) -> int:
    """Write an error where errors go, and return its exit code."""
    text = escaped(msgspec.json.encode(told).decode()) if as_json else sentence(told)
    print(text, file=stream)
    if verbose and not as_json:
        for cause in _causes(error):
            print(f"  because: {clean(cause)}", file=stream)
        if told.code == "unexpected":
            stream.write("".join(traceback.format_exception(error)))
    return told.exit


def _causes(error: BaseException) -> Iterator[str]:
    """Yield what led to an error, the nearest first."""
    seen = error
    while (cause := seen.__cause__ or seen.__context__) is not None:
        yield f"{type(cause).__name__}: {cause}"
        seen = cause
