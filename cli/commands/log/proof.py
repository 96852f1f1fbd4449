"""The commands anchor, key, prove and prove-consistency."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.errors import DONE, UsageError, from_extra
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import check_log
from herdbook.core import Storage, SystemClock
from herdbook.core.errors.files import read_remedy
from herdbook.core.proof import keys, proof
from herdbook.core.proof.anchor import Anchor
from herdbook.core.proof.anchor_file import append_anchor, read_anchor_file
from herdbook.core.transfer.backup import check_outside
from herdbook.events.errors import CallerError
from herdbook.events.facts import AnchorReceived
from herdbook.presentation import shapes

SigningKey = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Sign with this private key."),
]
AnchorFile = Annotated[
    Path | None,
    typer.Option(
        "--anchor",
        metavar="FILE",
        help="Prove against the last anchor in this file instead of a new one.",
    ),
]


class KeyAction(StrEnum):
    """What to do with a key."""

    NEW = "new"


@verb("anchor", HISTORY)
async def anchor(
    invocation: Invocation,
    *,
    key: SigningKey = None,
    append: Annotated[
        Path | None,
        typer.Option("--append", metavar="FILE", help="Append the anchor to a file."),
    ] = None,
    received: Annotated[
        bool,
        typer.Option(
            "--received",
            help="Print the anchors received from other Herdbook services instead of a "
            "new one.",
        ),
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            metavar="ORIGIN",
            help="With --received: only anchors of this log, herdbook/ID.",
        ),
    ] = None,
) -> int:
    """Print an anchor: a checkpoint to store elsewhere.

    An anchor contains the number of events, the root of a Merkle tree over them, the
    hash of the last one and the time. Later, `verify --anchors` shows whether any of
    these events was changed.
    """
    if received:
        return await _show_received(invocation, origin)
    if append:
        check_outside(append, invocation.log)
    async with _storage(invocation) as storage:
        made = await proof.make_anchor(storage, SystemClock())
    if key:
        with from_extra("the signature package", "proof"):
            made = keys.sign(made, key)
    if append:
        append_anchor(append, made)
    if invocation.json:
        invocation.screen.write_json(
            shapes.Anchored(
                position=made.position,
                hash=made.hash,
                root=base64.b64encode(made.root).decode(),
                time=made.time,
                text=made.text(),
            )
        )
    else:
        for line in made.text().splitlines():
            invocation.screen.write(line)
    return DONE


async def _show_received(invocation: Invocation, origin: str | None) -> int:
    """Print the anchors of other logs, the oldest first."""
    found: list[AnchorReceived] = []
    async with _storage(invocation) as storage:
        types = {AnchorReceived.__name__}
        async for event in storage.store.read_all(types=types):
            fact = event.data
            if isinstance(fact, AnchorReceived) and origin in {None, fact.origin}:
                found.append(fact)
    if invocation.json:
        invocation.screen.write_json(found)
        return DONE
    for fact in found:
        for line in fact.text.splitlines():
            invocation.screen.write(line)
    return DONE


@verb("key", HISTORY)
async def key(
    invocation: Invocation,
    action: Annotated[KeyAction, typer.Argument(metavar="new", help="Create a key.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File for the private key.")
    ],
    *,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name of the key, such as the person or host that signs.",
        ),
    ],
) -> int:
    """Create an Ed25519 key for signing anchors.

    The public key is printed and also written to FILE.pub. Give it to anyone who
    verifies your anchors.
    """
    if action is KeyAction.NEW:
        with from_extra("the signature package", "proof"):
            invocation.screen.write(keys.new_key(file, name).text())
    return DONE


@verb("prove", HISTORY)
async def prove(
    invocation: Invocation,
    position: Annotated[
        str,
        typer.Argument(
            metavar="#POSITION", help="Position of the event, such as #123."
        ),
    ],
    *,
    anchor: AnchorFile = None,
    key: SigningKey = None,
) -> int:
    """Print a proof that an event is in the log.

    The proof is JSON. It can be checked without the log and without Herdbook;
    docs/proof.md has a short program that does so.
    """
    wanted = _position(position)
    async with _storage(invocation) as storage:
        against = _last(anchor) if anchor else None
        if against is None:
            against = await proof.make_anchor(storage, SystemClock())
        if key:
            with from_extra("the signature package", "proof"):
                against = keys.sign(against, key)
        made = await proof.prove(storage, wanted, against)
    invocation.screen.write_json(made)
    return DONE


@verb("consistent", HISTORY, hidden=True)
@verb("prove-consistency", HISTORY)
async def prove_consistency(
    invocation: Invocation,
    first: Annotated[
        Path, typer.Argument(metavar="FIRST", help="File with the earlier anchor.")
    ],
    second: Annotated[
        Path, typer.Argument(metavar="SECOND", help="File with the later anchor.")
    ],
) -> int:
    """Print a proof that one anchor extends another.

    The proof is JSON. It shows that the log of the second anchor contains the whole log
    of the first, unchanged; if it does not, the command fails. Uses the last anchor in
    each file.
    """
    earlier, later = _last(first), _last(second)
    async with _storage(invocation) as storage:
        made = await proof.prove_consistency(storage, earlier, later)
    invocation.screen.write_json(made)
    return DONE


def read_anchors(files: Collection[Path]) -> list[Anchor]:
    """Read files of anchors.

    Raises:
        CallerError: A file cannot be read, or is not a file of anchors.
    """
    found: list[Anchor] = []
    for file in files:
        anchors = read_anchor_file(file)
        if not anchors:
            raise CallerError(str(file), "has no anchors", "Choose another file")
        found += anchors
    return found


def read_keys(files: Collection[Path]) -> list[keys.PublicKey]:
    """Read files of public keys, one key each.

    Raises:
        CallerError: A file cannot be read, or has no public key.
        MissingExtraError: The package that verifies signatures is not installed.
    """
    found = [keys.parse_public_key(_text(file)) for file in files]
    if found:
        with from_extra("the signature package", "proof"):
            import_module("cryptography")  # fail before the log is read
    return found


@asynccontextmanager
async def _storage(invocation: Invocation) -> AsyncIterator[Storage]:
    await check_log(invocation.log)
    async with Storage.open(invocation.log, SystemClock(), reading=True) as storage:
        yield storage


def _last(file: Path) -> Anchor:
    return read_anchors([file])[-1]


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise CallerError(
            str(file), f"cannot be read: {error.strerror or error}", read_remedy(error)
        ) from error
    except UnicodeError as error:
        raise CallerError(
            str(file), "is not a text file", "Give the text file of a proof or a key"
        ) from error


def _position(text: str) -> int:
    found = re.fullmatch(r"#?([1-9][0-9]{0,17})", text.strip())
    if found is None:
        raise UsageError(f"{text!r}", "is not a position", "Write it as #123")
    return int(found[1])
