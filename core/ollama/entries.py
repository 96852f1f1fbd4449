"""Lists that a server answers with, read entry by entry.

An entry that cannot be read costs itself and nothing else: the others are read, and
the odd one is kept by its name and the reason, to be shown. What it hides is kept as
well, as far as it can be told: nothing may be concluded from the absence of a model
or a runner that an unreadable entry could be.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from herdbook.core.errors import BadAnswerError, InvalidNameError
from herdbook.core.models.names import canonical_name
from herdbook.core.ollama.bounds import (
    NULL,
    UNREADABLE,
    Digest,
    Name,
    lenient,
    optional,
    printable,
)
from herdbook.core.ollama.wire import RunnerEntry, TagEntry

MODELS: Final = "/api/tags"
RUNNERS: Final = "/api/ps"

MOST_ENTRIES: Final = {MODELS: 5_000, RUNNERS: 256}
"""Entries that are read of a list; Ollama runs at most three runners per GPU."""

LONGEST_ENTRY: Final = 64 * 2**10
"""Bytes of an entry; real ones have 600."""

NAMELESS: Final = "(no name)"

MOST_NAMED: Final = 3
"""Unreadable entries that are named; more are counted."""

MOST_PARTS: Final = 200_000
"""Commas in a list that is read at all; 5,000 real entries have 125,000."""

ENTRIES_AT_ONCE: Final = 100
TOKENS_AT_ONCE: Final = 5_000
"""How much is read before other tasks get their turn: about 5 ms each."""

Entry = TypeVar("Entry", TagEntry, RunnerEntry)

# A string (perhaps without its end), or what separates. Possessive: never quadratic.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[][{},]', re.DOTALL)
_FIELD: Final = re.compile(r"at `\$\.(\w+)`$")
_REASONS: Final = {
    "name": "its name is no name of a model",
    "digest": "its digest is not 64 hexadecimal digits",
    "size": "its size is not from 0 to 2^50 bytes",
    "size_vram": "its size on the GPU is not from 0 to 2^50 bytes",
    "remote_host": "its remote host is no short text",
}
_DEEPER: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_LIST: Final = re.compile(rb"\s*:\s*(?=\[)")


class UnreadableEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a server's list that cannot be read.

    Attributes:
        source: The list: ``/api/tags`` or ``/api/ps``.
        name: Its name for people; "(no name)" where it has none.
        reason: Why it cannot be read.
        model: The canonical name, if it has one.
        digest: The model's digest, if it has a valid one.
    """

    source: str
    name: str
    reason: str
    model: str | None = None
    digest: str | None = None


def unreadable_text(entries: Sequence[UnreadableEntry]) -> str:
    """Return which entries cannot be read and why: the first few, the others counted.

    Such as: 1 entry of the server's lists cannot be read: a b (/api/tags: ...).
    """
    count = "1 entry" if len(entries) == 1 else f"{len(entries):,} entries"
    named = [f"{one.name} ({one.source}: {one.reason})" for one in entries[:MOST_NAMED]]
    more = len(entries) - MOST_NAMED
    named += [f"and {more:,} more"] if more > 0 else []
    return f"{count} of the server's lists cannot be read: {', '.join(named)}"


class Listing(msgspec.Struct, Generic[Entry], frozen=True, kw_only=True):
    """A list as far as it can be read.

    Attributes:
        entries: The entries, in the server's order.
        unreadable: The entries that cannot be read.
    """

    entries: list[Entry]
    unreadable: tuple[UnreadableEntry, ...] = ()


class _List(msgspec.Struct):
    models: list[msgspec.Raw] | None


class _Traits(msgspec.Struct):
    name: msgspec.Raw = NULL
    digest: msgspec.Raw = NULL


_TRAITS: Final = optional(_Traits)
_TEXT: Final = optional(str)
_NAME: Final = optional(Name)
_DIGEST: Final = optional(Digest)


async def read_list(
    body: bytes, kind: type[Entry], *, source: str, node: str
) -> Listing[Entry]:
    """Read a list, and let other tasks run meanwhile.

    Raises:
        BadAnswerError: There is no list in the answer.
    """
    raws = await _split(body, source=source, node=node)
    entries: list[Entry] = []
    unreadable: list[UnreadableEntry] = []
    most = MOST_ENTRIES[source]
    for place, raw in enumerate(raws[:most], start=1):
        if place % ENTRIES_AT_ONCE == 0:
            await asyncio.sleep(0)
        found = _read(raw, kind, source)
        if isinstance(found, UnreadableEntry):
            unreadable.append(found)
        else:
            entries.append(found)
    if len(raws) > most:
        unreadable.append(
            UnreadableEntry(
                source=source,
                name=f"entries after the first {most:,}",
                reason=f"the list has {len(raws):,} entries",
            )
        )
    if source == MODELS:
        entries, again = _without_contradictions(entries, source)
        unreadable += again
    return Listing(entries=entries, unreadable=tuple(unreadable))


def _read(
    raw: bytes | msgspec.Raw, kind: type[Entry], source: str
) -> Entry | UnreadableEntry:
    if len(raw) > LONGEST_ENTRY:
        return UnreadableEntry(
            source=source, name=NAMELESS, reason=f"it has {len(raw):,} bytes"
        )
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNREADABLE as error:
        field = _FIELD.search(str(error))
        reason = _REASONS.get(field[1] if field else "", str(error))
        return _unreadable(raw, source, printable(reason, 200))


def _unreadable(raw: bytes | msgspec.Raw, source: str, reason: str) -> UnreadableEntry:
    """Return what can be told of an entry that cannot be read."""
    traits = lenient(msgspec.Raw(raw), _TRAITS, _Traits(), longest=LONGEST_ENTRY)
    name = lenient(traits.name, _TEXT, "")
    return UnreadableEntry(
        source=source,
        name=printable(name) if name.strip() else NAMELESS,
        reason=reason,
        model=_canonical(lenient(traits.name, _NAME, "")),
        digest=lenient(traits.digest, _DIGEST, "") or None,
    )


def _canonical(name: str) -> str | None:
    try:
        return canonical_name(name)
    except InvalidNameError:
        return None


def _without_contradictions(
    entries: list[Entry], source: str
) -> tuple[list[Entry], list[UnreadableEntry]]:
    """Drop repetitions; of a name listed with two digests, neither can be believed."""
    if len({entry.name for entry in entries}) == len(entries):
        return entries, []
    digests = {(entry.name, entry.digest): entry for entry in reversed(entries)}
    times = Counter(name for name, _ in digests)
    kept = [entry for entry in entries if digests.get(_key(entry)) is entry]
    unreadable = [
        UnreadableEntry(
            source=source,
            name=printable(entry.name),
            reason="the list has it several times, with different digests",
            model=entry.name,
            digest=entry.digest,
        )
        for entry in kept
        if times[entry.name] > 1
    ]
    return [entry for entry in kept if times[entry.name] == 1], unreadable


def _key(entry: TagEntry | RunnerEntry) -> tuple[str, str]:
    return entry.name, entry.digest


async def _split(
    body: bytes, *, source: str, node: str
) -> list[msgspec.Raw] | list[bytes]:
    """Return the entries of a list, each as its own JSON.

    Raises:
        BadAnswerError: There is no list, or it has very many parts.
    """
    if body.count(b",") > MOST_PARTS:
        raise BadAnswerError(node, raw=f"{source}: over {MOST_PARTS:,} parts")
    try:
        return msgspec.json.decode(body, type=_List).models or []
    except msgspec.ValidationError as error:
        raise BadAnswerError(node, raw=f"{source}: {error}") from error
    except UNREADABLE as error:
        # One entry has what JSON does not: NaN, half a character, endless nesting.
        found = [one async for one in _pieces(body)]
        if not found or found[-1] is not None:
            raise BadAnswerError(node, raw=f"{source}: {error}") from error
        return [piece for piece in found if piece is not None]


async def _pieces(body: bytes) -> AsyncIterator[bytes | None]:
    """Yield what stands between the commas of the list, and None after its end."""
    depth, begin = 0, None
    for number, found in enumerate(_TOKEN.finditer(body)):
        if number % TOKENS_AT_ONCE == 0:
            await asyncio.sleep(0)
        token = found[0]
        if begin is not None and depth == 2 and token in b"]},":
            piece = body[begin : found.start()].strip()
            begin = found.end()
            if token != b"}" and (piece or token == b","):
                yield piece
            if token == b"]":
                yield None
            if token != b",":
                return
        elif begin is None and depth == 1 and token == b'"models"':
            opened = _LIST.match(body, found.end())
            begin = opened.end() + 1 if opened else None
        depth += _DEEPER.get(token, 0)
