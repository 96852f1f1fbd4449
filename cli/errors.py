"""Report errors: one line for people, an object for scripts, and the exit code.

``EXITS`` is the only place that defines exit codes. The nearest base class of an
error that is in the table decides.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import msgspec

from herdbook.cli.encoding import is_unicode
from herdbook.cli.output import clean, escaped, folded
from herdbook.core import (
    BadAnswerError,
    BusyError,
    BusyServerError,
    CallerError,
    ConflictError,
    HerdbookError,
    IllegalTransitionError,
    MissingExtraError,
    ModelNotFoundError,
    NodeTimeoutError,
    NodeUnreachableError,
    OperationEndedError,
    PullRefusedError,
    ResourceExhaustedError,
)
from herdbook.core.errors import PullRefusal
from herdbook.events.shared.file_descriptors import (
    RAISE_THE_LIMIT,
    TOO_MANY,
    is_exhausted,
)

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
BUSY = 4
UNREACHABLE = 5


class UsageError(CallerError):
    """The arguments of the command are not valid."""

    code = "usage"


class NothingFoundError(CallerError):
    """The requested thing does not exist."""

    code = "not_found"


class StoppedError(HerdbookError):
    """The user stopped the command with Ctrl-C or SIGTERM."""

    code = "stopped"


class OutputError(HerdbookError):
    """The output could not be written."""

    code = "output"


class FileError(HerdbookError):
    """A file or directory that the command needs cannot be used."""

    code = "file"


def file_failure(error: OSError) -> FileError | OutputError:
    """Return the failure of a file or, if the error names none, of the output."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return OutputError("the output", f"cannot be written: {reason}")
    return FileError(
        str(error.filename),
        f"cannot be used: {reason}",
        "Grant access to it, or choose another path",
    )


class NoHomeError(HerdbookError):
    """The user's data directory cannot be used."""

    code = "no_home"


@contextmanager
def from_extra(part: str, extra: str) -> Iterator[None]:
    """Import something of an optional extra in the block.

    Args:
        part: What is not installed if that fails, such as ``the service``.
        extra: What to install, such as ``service`` or ``gateway,service``.

    Raises:
        MissingExtraError: A module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            part,
            f"is not installed ({error.name} is missing)",
            f"Install it: pip install 'herdbook[{extra}]'",
        ) from error


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

EXITS_BY_REFUSAL = {PullRefusal.NOT_IN_REGISTRY: NOT_FOUND}
"""Exit codes of refused pulls; others are ``FAILED``."""


class ErrorShape(msgspec.Struct, frozen=True, kw_only=True):
    """An error as ``--json`` prints it.

    Attributes:
        code: Stable identifier of the kind of error.
        subject: The model, file or value that is wrong.
        state: The problem with the subject.
        remedy: The next step; may be empty.
        exit: The exit code.
    """

    code: str
    subject: str
    state: str
    remedy: str
    exit: int


def exit_code(error: HerdbookError) -> int:
    """Return the exit code of an error; 3 for a model that the registry lacks."""
    if isinstance(error, PullRefusedError):
        return EXITS_BY_REFUSAL.get(error.refusal, FAILED)
    return next(EXITS[kind] for kind in type(error).__mro__ if kind in EXITS)


def shape(error: HerdbookError) -> ErrorShape:
    """Return an error in parts."""
    return ErrorShape(
        code=error.code,
        subject=error.subject,
        state=error.state,
        remedy=error.remedy,
        exit=exit_code(error),
    )


def sentence(error: ErrorShape) -> str:
    """Return an error as one line: subject, state, remedy, exit code."""
    problem = f"{error.subject} {error.state}".strip()
    end = " " if problem.endswith("?") else ". "
    text = clean(problem + (f"{end}{error.remedy}" if error.remedy else ""))
    return f"herdbook: {text}   (exit {error.exit})"


def unexpected(error: Exception) -> ErrorShape:
    """Return the report of an exception that is not a ``HerdbookError``."""
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
        remedy="This is a bug in Herdbook. Add --verbose for the traceback",
        exit=FAILED,
    )


def report(
    shown: ErrorShape,
    error: BaseException,
    stream: IO[str],
    *,
    as_json: bool,
    verbose: bool,
) -> int:
    """Write an error to a stream and return its exit code."""
    text = (
        escaped(msgspec.json.encode(shown).decode(), ascii_only=not is_unicode(stream))
        if as_json
        else sentence(shown)
    )
    print(text if as_json else folded(text, stream), file=stream)
    if verbose and not as_json:
        for cause in _causes(error):
            print(f"  because: {clean(cause)}", file=stream)
        if shown.code == "unexpected":
            stream.write("".join(traceback.format_exception(error)))
    return shown.exit


def _causes(error: BaseException) -> Iterator[str]:
    """Yield the causes of an error, the nearest first."""
    seen = error
    while (cause := seen.__cause__ or seen.__context__) is not None:
        yield f"{type(cause).__name__}: {cause}"
        seen = cause
