"""Checks of a server and its models: the current answers, compared with the log.

One failure hides no other: a failed request is a result of its own, and the other
checks continue with the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from herdbook.core.checks.log import failed
from herdbook.core.clock import Clock
from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.errors import (
    HerdbookError,
    ModelNotFoundError,
    NodeTimeoutError,
    OllamaError,
)
from herdbook.core.history.read_model import ReadModel
from herdbook.core.ollama.address import is_local
from herdbook.core.ollama.entries import UnreadableEntry, unreadable_text
from herdbook.core.ollama.wire import ShowAnswer
from herdbook.core.reconcile.drift import orphaned
from herdbook.core.reconcile.observation import listed
from herdbook.core.reconcile.server_state import ServerState, WeightsOf
from herdbook.events.facts import ModelVanished, Runner, is_forever
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.projections.sentences import bytes_text, duration_text
from herdbook.projections.status import ModelStatus

if TYPE_CHECKING:
    from herdbook.core.ollama.client import OllamaClient, ServerAnswers

SLOW_ANSWER_S = 1.0
"""Seconds for version, models and runners together, beyond which a server is slow."""

CONCURRENT_SHOWS = 4
"""Concurrent ``/api/show`` requests."""

UNVERSIONED = "0.0.0"
"""The version of a build without a version."""


class Checking(msgspec.Struct, frozen=True, kw_only=True):
    """The data that a server is checked against.

    Attributes:
        read_model: The state in the log.
        weights_of: Returns the weights of a digest, if the log knows them.
        clock: The clock.
        within_s: Timeout of the requests, seconds.
        folder: The directory of the server's models, if known.
    """

    read_model: ReadModel
    weights_of: WeightsOf
    clock: Clock
    within_s: float
    folder: Path | None = None


async def check_server(client: OllamaClient, against: Checking) -> list[Diagnosis]:
    """Check a server and its models."""
    asked = against.clock.monotonic()
    try:
        answers = await client.poll(within_s=against.within_s)
    except OllamaError as error:
        return [
            failed("server", error),
            *_in_error(against.read_model, against.clock.now()),
        ]
    took = against.clock.monotonic() - asked
    there = [entry.name for entry in answers.models]
    names = [*there, *_vanished(against.read_model, there)]
    shown = await _shows(client, names, against)
    return [
        check_latency(client.base_url, answers.version, took),
        check_version(answers),
        *_unreadable(answers.unreadable),
        *_runners(answers, shown, against),
        *await _damaged(client, there, shown),
        *_in_error(against.read_model, against.clock.now()),
        check_partials(client.base_url, against),
    ]


def check_latency(url: str, version: str, seconds: float) -> Diagnosis:
    """Check how fast a server answers."""
    what = f"Ollama {version} at {url} answers in {seconds * 1000:.0f} ms"
    if seconds <= SLOW_ANSWER_S:
        return diagnosis("server", what)
    remedy = "It may be loading a model, or its disk may be slow"
    return diagnosis("server", what, remedy, level=Level.NOTICE)


def check_version(answers: ServerAnswers) -> Diagnosis:
    """Check which features a server lacks, by its answers and not by its version."""
    lacks = [*_lacks(answers)]
    if lacks:
        return diagnosis(
            "version",
            f"Ollama {answers.version} does not report {', or '.join(lacks)}",
            "Update Ollama, or make the proxy in front of it forward all paths below "
            "/api",
            level=Level.NOTICE,
        )
    if answers.version == UNVERSIONED:
        what = f"{UNVERSIONED}: a build without a version"
        return diagnosis("version", what, level=Level.NOTICE)
    return diagnosis(
        "version", f"{answers.version}, with all features that Herdbook uses"
    )


def _lacks(answers: ServerAnswers) -> Iterator[str]:
    if answers.runners is None:
        yield "loaded models (whether a model is loaded is unknown)"
    local = [entry for entry in answers.models if entry.remote_host is None]
    if local and all(entry.capabilities is None for entry in local):
        yield "capabilities in its list of models (each needs its own request)"
    if answers.runners and all(one.context_length is None for one in answers.runners):
        yield "the context in effect"


async def _shows(
    client: OllamaClient, names: Sequence[str], against: Checking
) -> dict[str, ShowAnswer | HerdbookError]:
    """Return the details of each model, or the error."""
    places = asyncio.Semaphore(CONCURRENT_SHOWS)

    async def show(name: str) -> ShowAnswer | HerdbookError:
        async with places:
            try:
                async with against.clock.timeout(against.within_s):
                    return await client.show(name)
            except TimeoutError:
                return NodeTimeoutError(name, seconds=against.within_s)
            except HerdbookError as error:
                return error

    found = await asyncio.gather(*(show(name) for name in names))
    return dict(zip(names, found, strict=True))


def _vanished(read_model: ReadModel, there: Collection[str]) -> Iterator[str]:
    """Yield the models that vanished: one with a damaged manifest is not listed."""
    for status in read_model.statuses():
        why = status.why
        if status.name not in there and why and why.event == ModelVanished.__name__:
            yield status.name


async def _damaged(
    client: OllamaClient,
    there: Sequence[str],
    shown: Mapping[str, ShowAnswer | HerdbookError],
) -> list[Diagnosis]:
    """Return the models that the server lists and cannot show.

    A server lists a model whose weights are gone, and answers "not found" for it.
    """
    found = [
        failed("models", error)
        for error in shown.values()
        if isinstance(error, HerdbookError)
        and not isinstance(error, ModelNotFoundError)
    ]
    missing = [n for n in there if isinstance(shown[n], ModelNotFoundError)]
    try:  # a model can also have been deleted just now
        listed_now = (await client.tags()).entries if missing else []
    except OllamaError as error:
        return [*found, failed("server", error)]
    still = {entry.name for entry in listed_now}
    found += [_without_weights(name) for name in missing if name in still]
    well = diagnosis("models", f"{len(there)} listed, all readable")
    return found or [well]


def _without_weights(name: str) -> Diagnosis:
    return diagnosis(
        "models",
        f"{name} is listed, but its weights are missing on the server",
        "Pull it again",
        level=Level.PROBLEM,
    )


def _unreadable(entries: Sequence[UnreadableEntry]) -> Iterator[Diagnosis]:
    """Yield a warning about entries of the server's lists that cannot be read."""
    if entries:
        yield diagnosis(
            "entries",
            unreadable_text(entries),
            "Check these entries with 'ollama list', and copy or delete them there",
            level=Level.WARNING,
        )


def _runners(
    answers: ServerAnswers,
    shown: Mapping[str, ShowAnswer | HerdbookError],
    against: Checking,
) -> Iterator[Diagnosis]:
    """Yield the orphaned runners, which hold memory for a deleted model."""
    weights = {
        name: answer.weights if isinstance(answer, ShowAnswer) else None
        for name, answer in shown.items()
    }
    seen = ServerState(
        at=against.clock.now(),
        server_version=answers.version,
        models={entry.name: listed(entry) for entry in answers.models},
        runners=tuple(entry.runner for entry in answers.runners or ()),
        unreadable=answers.unreadable,
    )
    runners = orphaned(seen, weights, against.weights_of)
    if answers.runners is None:
        yield diagnosis("runners", "not reported by the server", level=Level.NOTICE)
    elif not runners:
        yield diagnosis("runners", f"{len(answers.runners)}, none orphaned")
    for runner in runners:
        yield _orphaned(runner, seen.at)


def _orphaned(runner: Runner, now: datetime) -> Diagnosis:
    return diagnosis(
        "runners",
        f"{bytes_text(runner.size_bytes)} in memory for {runner.name}, which was "
        f"deleted; {_leaves(runner.expires_at, now)}",
        "Wait, or restart the server: it cannot unload a model that was deleted",
        level=Level.WARNING,
    )


def _leaves(expires_at: datetime | None, now: datetime) -> str:
    if expires_at is None or is_forever(expires_at):
        return "the server keeps it there"
    seconds = (expires_at - now).total_seconds()
    if seconds <= 0:
        return "it is in use"
    return f"its memory is freed in {duration_text(seconds)}"


def _in_error(read_model: ReadModel, now: datetime) -> Iterator[Diagnosis]:
    """Yield the models in error, with their last failure."""
    for status in read_model.statuses():
        failure = status.last_failure
        if status.is_old_failure(now):
            continue
        if status.state is ModelState.ERROR and failure is not None:
            named = failure.message.startswith(f"{status.name} ")
            again = f"{'load' if status.present else 'pull'} it again"
            has_remedy = again in failure.message.lower()
            yield diagnosis(
                "errors",
                failure.message if named else f"{status.name}: {failure.message}",
                "" if has_remedy else f"Once that is fixed, {again}",
                level=Level.WARNING,
            )


def check_partials(url: str, against: Checking) -> Diagnosis:
    """Check for unfinished downloads, if the directory is readable here."""
    folder = against.folder
    if folder is None or not is_local(url):
        return _unknown_partials("the server is on another machine")
    try:
        partials = [*(folder / "blobs").iterdir()]
        sizes = [p.stat() for p in partials if p.name.endswith("-partial")]
    except OSError as error:
        return _unknown_partials(f"{folder}: {error.strerror}")
    if not sizes:
        return diagnosis("partials", f"no unfinished downloads in {folder}")
    held = sum(size.st_blocks for size in sizes) * 512  # POSIX: blocks of 512 bytes
    age = against.clock.now().timestamp() - min(size.st_mtime for size in sizes)
    what = (
        f"{len(sizes)} unfinished in {folder}, {bytes_text(held)} in total; the oldest "
        f"was last written {duration_text(max(age, 0))} ago"
    )
    pulling = [*_pulling(against.read_model.statuses())]
    if pulling:
        return diagnosis("partials", f"{what}; in progress: {', '.join(pulling)}")
    return diagnosis(
        "partials",
        what,
        "To resume, pull the same model again. When the server starts, it removes "
        "unfinished downloads older than an hour",
        level=Level.NOTICE,
    )


def _unknown_partials(reason: str) -> Diagnosis:
    what = f"cannot check for unfinished downloads ({reason})"
    remedy = "Run herdbook doctor on the server's machine, with the same OLLAMA_MODELS"
    return diagnosis("partials", what, remedy, level=Level.NOTICE)


def _pulling(statuses: Iterable[ModelStatus]) -> Iterator[str]:
    for status in statuses:
        if status.activity is Activity.PULL or status.updating:
            yield status.name
