"""Checks of a server and of its models: asked for now, held against what the log says.

One failure hides no other: what cannot be asked is itself a finding, and the rest is
checked as far as the log alone tells.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from herdbook.core.checks.log import failed
from herdbook.core.clock import Clock
from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.errors import HerdbookError, ModelNotFoundError, OllamaError
from herdbook.core.history.read_model import ReadModel
from herdbook.core.ollama.address import is_local
from herdbook.core.ollama.entries import UnreadableEntry, unreadable_text
from herdbook.core.ollama.wire import ShowAnswer
from herdbook.core.reconcile.drift import unowned
from herdbook.core.reconcile.observation import listed
from herdbook.core.reconcile.server_state import ServerState, WeightsOf
from herdbook.events.facts import ModelVanished, Runner
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.projections.sentences import FOREVER_YEAR, bytes_text, duration_text
from herdbook.projections.status import ModelStatus

if TYPE_CHECKING:
    from herdbook.core.ollama.client import OllamaClient, ServerAnswers

SLOW_ANSWER_S = 1.0
"""Seconds for version, models and runners together, beyond which that is slow."""

SHOWS_AT_ONCE = 4
"""How many models are asked about at the same time."""

UNVERSIONED = "0.0.0"
"""What a server says whose builder gave it no version."""


class Checking(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is held against.

    Attributes:
        moment: What the log says.
        weights_of: Tells the weights of digests that the log knows.
        clock: What time it is.
        within_s: Seconds that the server may take to answer.
        folder: Where the server keeps its models, as far as that is known here.
    """

    moment: ReadModel
    weights_of: WeightsOf
    clock: Clock
    within_s: float
    folder: Path | None = None


async def check_server(client: OllamaClient, against: Checking) -> list[Diagnosis]:
    """Check a server, and the models that it has."""
    asked = against.clock.monotonic()
    try:
        look = await client.look(within_s=against.within_s)
    except OllamaError as error:
        return [failed("server", error), *_in_error(against.moment)]
    took = against.clock.monotonic() - asked
    there = [entry.name for entry in look.models]
    shown = await _shows(client, [*there, *_vanished(against.moment, there)])
    return [
        check_latency(client.base_url, look.version, took),
        check_version(look),
        *_unreadable(look.unreadable),
        *_runners(look, shown, against),
        *await _damaged(client, there, shown),
        *_in_error(against.moment),
        check_partials(client.base_url, against),
    ]


def check_latency(url: str, version: str, seconds: float) -> Diagnosis:
    """Check how soon a server answers."""
    what = f"Ollama {version} at {url} answers in {seconds * 1000:.0f} ms"
    if seconds <= SLOW_ANSWER_S:
        return diagnosis("server", what)
    remedy = "It may be busy with a load, or its disk slow"
    return diagnosis("server", what, remedy, level=Level.NOTICE)


def check_version(look: ServerAnswers) -> Diagnosis:
    """Check what a server lacks: told by its answers, not by its number."""
    lacks = [*_lacks(look)]
    if lacks:
        return diagnosis(
            "version",
            f"Ollama {look.version} does not tell {' nor '.join(lacks)}",
            "A newer Ollama does; until then models are asked about one by one",
            level=Level.NOTICE,
        )
    if look.version == UNVERSIONED:
        what = f"{UNVERSIONED}: a build that does not know its version"
        return diagnosis("version", what, level=Level.NOTICE)
    return diagnosis("version", f"{look.version} tells all that is asked for")


def _lacks(look: ServerAnswers) -> Iterator[str]:
    local = [entry for entry in look.models if entry.remote_host is None]
    if local and all(entry.capabilities is None for entry in local):
        yield "in its list what models can do"
    if look.runners and all(one.context_length is None for one in look.runners):
        yield "the context in effect"


async def _shows(
    client: OllamaClient, names: Iterable[str]
) -> dict[str, ShowAnswer | HerdbookError]:
    """Return what the server shows of each model, or why it does not."""
    places = asyncio.Semaphore(SHOWS_AT_ONCE)

    async def show(name: str) -> ShowAnswer | HerdbookError:
        async with places:
            try:
                return await client.show(name)
            except HerdbookError as error:
                return error

    names = list(names)
    found = await asyncio.gather(*(show(name) for name in names))
    return dict(zip(names, found, strict=True))


def _vanished(moment: ReadModel, there: Collection[str]) -> Iterator[str]:
    """Yield the models that the server lost: one of a torn manifest is not listed."""
    for status in moment.statuses():
        why = status.why
        if status.name not in there and why and why.event == ModelVanished.__name__:
            yield status.name


async def _damaged(
    client: OllamaClient,
    there: Sequence[str],
    shown: Mapping[str, ShowAnswer | HerdbookError],
) -> list[Diagnosis]:
    """Return the models that the server has and cannot show.

    It lists a model whose weights are gone, and says that it does not find it.
    """
    found = [
        failed("models", error)
        for error in shown.values()
        if isinstance(error, HerdbookError)
        and not isinstance(error, ModelNotFoundError)
    ]
    missing = [n for n in there if isinstance(shown[n], ModelNotFoundError)]
    try:  # or it was deleted just now
        listed_now = (await client.tags()).entries if missing else []
    except OllamaError as error:
        return [*found, failed("server", error)]
    still = {entry.name for entry in listed_now}
    found += [_without_weights(name) for name in missing if name in still]
    well = diagnosis("models", f"each of the {len(there)} that it lists can be shown")
    return found or [well]


def _without_weights(name: str) -> Diagnosis:
    return diagnosis(
        "models",
        f"{name} is listed by the server and not found there: its weights are gone",
        f"Fetch it again: herdbook pull {name}",
        level=Level.PROBLEM,
    )


def _unreadable(entries: Sequence[UnreadableEntry]) -> Iterator[Diagnosis]:
    """Yield what of the server's lists cannot be read, the first few by name."""
    if entries:
        yield diagnosis(
            "entries",
            unreadable_text(entries),
            "See what the server says there, and copy or delete that model with Ollama",
            level=Level.WARNING,
        )


def _runners(
    look: ServerAnswers,
    shown: Mapping[str, ShowAnswer | HerdbookError],
    against: Checking,
) -> Iterator[Diagnosis]:
    """Yield the runners that hold memory for no model."""
    weights = {
        name: answer.weights if isinstance(answer, ShowAnswer) else None
        for name, answer in shown.items()
    }
    seen = ServerState(
        at=against.clock.now(),
        server_version=look.version,
        models={entry.name: listed(entry) for entry in look.models},
        runners=tuple(entry.runner for entry in look.runners),
    )
    nobodys = unowned(seen, weights, against.weights_of)
    if not nobodys:
        yield diagnosis(
            "runners", f"{len(look.runners)}, each of a model that is there"
        )
    for runner in nobodys:
        yield _of_nobody(runner, seen.at)


def _of_nobody(runner: Runner, now: datetime) -> Diagnosis:
    return diagnosis(
        "runners",
        f"{bytes_text(runner.size_bytes)} in memory for {runner.name}, which is not "
        f"there any more; {_leaves(runner.expires_at, now)}",
        "Wait, or restart the server: it cannot unload what it no longer knows",
        level=Level.WARNING,
    )


def _leaves(expires_at: datetime | None, now: datetime) -> str:
    if expires_at is None or expires_at.year > FOREVER_YEAR:
        return "it stays for ever"
    seconds = (expires_at - now).total_seconds()
    return f"it leaves in {duration_text(seconds)}" if seconds > 0 else "it is in use"


def _in_error(moment: ReadModel) -> Iterator[Diagnosis]:
    """Yield the models that are in error, with what went wrong last."""
    for status in moment.statuses():
        failure = status.last_failure
        if status.state is ModelState.ERROR and failure is not None:
            command = f"herdbook {'load' if status.present else 'pull'} {status.name}"
            said = command in failure.message
            yield diagnosis(
                "errors",
                f"{status.name} is in error: {failure.message}",
                "" if said else f"When that is seen to: {command}",
                level=Level.WARNING,
            )


def models_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a server of this user keeps its models, as OLLAMA_MODELS says."""
    told = environment.get("OLLAMA_MODELS")
    return Path(told) if told else Path.home() / ".ollama" / "models"


def check_partials(url: str, against: Checking) -> Diagnosis:
    """Check for downloads that were not finished, where they can be seen."""
    folder = against.folder
    if folder is None or not is_local(url):
        return _untold("the server is on another machine")
    try:
        partials = [*(folder / "blobs").iterdir()]
        sizes = [p.stat() for p in partials if p.name.endswith("-partial")]
    except OSError as error:
        return _untold(f"{folder}: {error.strerror}")
    if not sizes:
        return diagnosis("partials", f"no unfinished downloads in {folder}")
    held = sum(size.st_blocks for size in sizes) * 512  # POSIX: blocks of 512 bytes
    age = against.clock.now().timestamp() - min(size.st_mtime for size in sizes)
    what = (
        f"{len(sizes)} in {folder} hold {bytes_text(held)}, the oldest written to "
        f"{duration_text(max(age, 0))} ago"
    )
    pulling = [*_pulling(against.moment.statuses())]
    if pulling:
        return diagnosis("partials", f"{what}; under way: {', '.join(pulling)}")
    return diagnosis(
        "partials",
        what,
        "A pull of the same model goes on from there; the server removes those older "
        "than an hour when it starts",
        level=Level.NOTICE,
    )


def _untold(reason: str) -> Diagnosis:
    what = f"unfinished downloads cannot be told: {reason}"
    remedy = "Run doctor on the server's machine, with its OLLAMA_MODELS"
    return diagnosis("partials", what, remedy, level=Level.NOTICE)


def _pulling(statuses: Iterable[ModelStatus]) -> Iterator[str]:
    for status in statuses:
        if status.activity in (Activity.PULL, Activity.UPDATE):
            yield status.name
