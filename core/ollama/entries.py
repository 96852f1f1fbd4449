"""Lists in a server's answers, decoded entry by entry.

An entry that cannot be read affects only itself: the others are returned, and the
unreadable one is reported with its name and the reason. Its name and digest are kept
if they are valid, because a model or runner that the entry may stand for must not
count as absent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from herdbook.core.errors import BadAnswerError, InvalidNameError
from herdbook.core.errors.validation import violation
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
from herdbook.core.ollama.html_pages import is_page
from herdbook.core.ollama.requests import error_in
from herdbook.core.ollama.wire import RunnerEntry, TagEntry

MODELS: Final = "/api/tags"
RUNNERS: Final = "/api/ps"

MOST_ENTRIES: Final = {MODELS: 5_000, RUNNERS: 256}
"""Maximum entries read per list; Ollama runs at most three runners per GPU."""

LONGEST_ENTRY: Final = 64 * 2**10
"""Maximum size of an entry, bytes; real ones have 600."""

NAMELESS: Final = "(no name)"

MOST_NAMED: Final = 3
"""Unreadable entries that are named; the others are counted."""

MOST_PARTS: Final = 200_000
"""Maximum commas in a list; 5,000 real entries have 125,000."""

ENTRIES_AT_ONCE: Final = 100
TOKENS_AT_ONCE: Final = 5_000
"""Amounts read before other tasks run: about 5 ms each."""

Entry = TypeVar("Entry", TagEntry, RunnerEntry)

# A string (possibly unterminated) or a separator. Possessive: never quadratic.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[][{},]', re.DOTALL)
_FIELD: Final = re.compile(r"at `\$\.(\w+)`$")
_REASONS: Final = {
    "name": "its name is not a valid model name",
    "digest": "its digest is not 64 hexadecimal digits",
    "size": "its size is not from 0 to 2^50 bytes",
    "size_vram": "its size on the GPU is not from 0 to 2^50 bytes",
    "remote_host": "its remote host is not a short string",
}
_DEEPER: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_LIST: Final = re.compile(rb"\s*:\s*(?=\[)")


class UnreadableEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a server's list that cannot be read.

    Attributes:
        source: The list: ``/api/tags`` or ``/api/ps``.
        name: The name as displayed; "(no name)" if it has none.
        reason: Why the entry cannot be read.
        model: The canonical name, if the name is valid.
        digest: The model's digest, if it is valid.
    """

    source: str
    name: str
    reason: str
    model: str | None = None
    digest: str | None = None


def unreadable_text(entries: Sequence[UnreadableEntry]) -> str:
    """Return a sentence that lists the first few unreadable entries with reasons.

    Example: 1 entry in the server's lists was skipped: a b (/api/tags: ...).
    """
    named = [f"{one.name} ({one.source}: {one.reason})" for one in entries[:MOST_NAMED]]
    more = len(entries) - MOST_NAMED
    named += [f"and {more:,} more"] if more > 0 else []
    single = len(entries) == 1
    count = "1 entry" if single else f"{len(entries):,} entries"
    left_out = f"in the server's lists {'was' if single else 'were'} skipped"
    return f"{count} {left_out}: {', '.join(named)}"


class Listing(msgspec.Struct, Generic[Entry], frozen=True, kw_only=True):
    """A decoded list.

    Attributes:
        entries: The valid entries, in the server's order.
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
    """Decode a list; other tasks run in between.

    Raises:
        BadAnswerError: The answer contains no list.
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
        entries, contradictory = _without_contradictions(entries, source)
        unreadable += contradictory
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
        plain = violation(str(error)).text("it")
        reason = _REASONS.get(field[1] if field else "", plain)
        return _unreadable(raw, source, printable(reason, 200))


def _unreadable(raw: bytes | msgspec.Raw, source: str, reason: str) -> UnreadableEntry:
    """Return the name and digest of an entry that cannot be read, if they are valid."""
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
    """Keep one entry of each name, and report its other digests.

    The smallest digest is kept, so that the order of the list does not matter: a model
    whose entries change places was not updated.
    """
    if len({entry.name for entry in entries}) == len(entries):
        return entries, []
    digests = {(entry.name, entry.digest): entry for entry in reversed(entries)}
    kept = {name: digests[name, digest] for name, digest in sorted(digests)[::-1]}
    unreadable = [
        UnreadableEntry(
            source=source,
            name=printable(entry.name),
            reason=f"it is listed again, with another digest: {entry.digest[:12]}",
            model=entry.name,
            digest=entry.digest,
        )
        for entry in entries
        if digests[entry.name, entry.digest] is entry and kept[entry.name] is not entry
    ]
    return [entry for entry in entries if kept[entry.name] is entry], unreadable


async def _split(
    body: bytes, *, source: str, node: str
) -> list[msgspec.Raw] | list[bytes]:
    """Split a list into the JSON of its entries.

    Raises:
        BadAnswerError: There is no list, or it has too many parts.
    """
    if body.count(b",") > MOST_PARTS:
        raise BadAnswerError(node, raw=f"{source}: over {MOST_PARTS:,} parts")
    try:
        return msgspec.json.decode(body, type=_List).models or []
    except msgspec.ValidationError as error:
        reason = error_in(body) or violation(str(error)).text("the list")
        raise BadAnswerError(node, raw=f"{source}: {reason}") from error
    except UNREADABLE as error:
        # One entry is not valid JSON: NaN, half a character, nested too deeply.
        found = [one async for one in _pieces(body)]
        if not found or found[-1] is not None:
            reason = "an HTML page, not JSON" if is_page(body) else str(error)
            raise BadAnswerError(node, raw=f"{source}: {reason}") from error
        return [piece for piece in found if piece is not None]


async def _pieces(body: bytes) -> AsyncIterator[bytes | None]:
    """Yield the texts between the commas of the list, then None if it is closed."""
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
