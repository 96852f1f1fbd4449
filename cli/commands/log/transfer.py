"""The verbs ``export`` and ``import``."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import msgspec
import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.commands.log.filters import Since, Types, Until, parse_types
from herdbook.cli.commands.log.proof import read_anchors, read_keys
from herdbook.cli.completion import complete_stream
from herdbook.cli.errors import DONE, from_extra
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import check_log
from herdbook.cli.output import Screen
from herdbook.cli.render.counting import added_text, counting
from herdbook.core import Storage, SystemClock
from herdbook.core.history.position_at import position_at
from herdbook.core.log.storage import log_exists
from herdbook.core.proof import keys
from herdbook.core.transfer.backup import check_target
from herdbook.core.transfer.contents import Selection
from herdbook.core.transfer.export import export as export_to_stream
from herdbook.core.transfer.export import export_to_file
from herdbook.core.transfer.export_check import (
    ExportCheck,
    open_export,
    read_export,
    read_first,
)
from herdbook.core.transfer.import_events import (
    check_export,
    import_events,
    refuse_unfit,
)
from herdbook.events.store import Head
from herdbook.presentation import shapes
from herdbook.projections.sentences import bytes_text, counted

STREAM = "-"
"""The name of standard input and output."""

SIGNATURES = "the signature package", "proof"
"""What signs exports, and the extra that has it."""


@verb("export", HISTORY)
async def export(
    invocation: Invocation,
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]",
            help="File to write, compressed if it ends with .gz; - for standard output "
            "(default).",
        ),
    ] = STREAM,
    *,
    since: Since = None,
    until: Until = None,
    streams: Annotated[
        list[str] | None,
        typer.Option(
            "--stream",
            metavar="NAME",
            help="Only this stream, or all streams below it if NAME ends with /. "
            "Repeatable.",
            autocompletion=complete_stream,
        ),
    ] = None,
    types: Types = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign the export with this private key."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an existing file.")
    ] = False,
) -> int:
    """Export the events of the log as JSON Lines.

    An export can be imported elsewhere or analyzed. Each line is an event in the
    CloudEvents 1.0 format, with its hash in the chain. A partial export includes a
    proof that each event is in the log. Other Herdbook processes can keep using the
    log.
    """
    log, to_file = invocation.log, file != STREAM
    await check_log(log)
    if to_file:
        check_target(Path(file), log, replace=replace)
    chosen = tuple(sorted(parse_types(types) or ()))
    clock = SystemClock()
    screen = invocation.screen if to_file else Screen(sys.stderr)
    async with Storage.open(log, clock, reading=True) as storage:
        selection = Selection(
            after=await _start(storage, since, invocation),
            until=await _end(storage, until, invocation),
            streams=tuple(streams or ()),
            types=chosen,
        )
        sign = partial(keys.sign, path=key) if key else None
        with counting(screen, "Exporting") as show, from_extra(*SIGNATURES):
            if not to_file:
                await export_to_stream(
                    storage,
                    sys.stdout.buffer,
                    clock,
                    selection=selection,
                    sign=sign,
                    progress=show,
                )
                return DONE
            ending, size = await export_to_file(
                storage,
                Path(file),
                clock,
                selection=selection,
                sign=sign,
                progress=show,
            )
    if invocation.json:
        invocation.screen.write_json(
            shapes.Exported(
                path=file,
                events=ending.events,
                position=ending.position,
                hash=ending.hash,
                size_bytes=size,
            )
        )
    else:
        events = counted(ending.events, "event")
        invocation.screen.write(f"{file}: {events}, {bytes_text(size)}")
    return DONE


@verb("import", HISTORY)
async def import_(
    invocation: Invocation,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Export; - for standard input.")
    ],
    *,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check the export without recording anything."),
    ] = False,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            metavar="FILE",
            help="Require the export to match one of these anchors. Repeatable.",
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Trusted public key; the export must be signed with one of them. "
            "Repeatable.",
        ),
    ] = None,
) -> int:
    """Import the events of an export, unchanged.

    Every line is checked first. Events that are already in the log are compared, so the
    command can be repeated, even after a crash. A log with a different history is
    refused.
    """
    new_checks = partial(
        ExportCheck,
        "standard input" if file == STREAM else file,
        anchors=read_anchors(anchors or ()),
        keys=read_keys(key or ()),
    )
    checks = new_checks()
    with _opened(file) as (source, is_file):
        # A file is read twice, so that a damaged one changes nothing.
        if check or is_file:
            with counting(invocation.screen, "Checking") as show:
                await check_export(source, checks, progress=show)
            if check:
                return _show_checked(invocation, file, checks)
            source.seek(0)
            checks = new_checks()  # the file may have changed meanwhile
        batches = await read_first(read_export(source, checks))
        if not await log_exists(invocation.log):
            refuse_unfit(checks, Head())  # before a log is made
        async with Storage.open(invocation.log, SystemClock()) as storage:
            with counting(invocation.screen, "Importing") as show:
                done = await import_events(storage, batches, checks, progress=show)
    imported = shapes.Imported(path=str(invocation.log), **msgspec.structs.asdict(done))
    if invocation.json:
        invocation.screen.write_json(imported)
    else:
        invocation.screen.write(added_text(imported.path, "imported", imported))
    return DONE


def _show_checked(invocation: Invocation, file: str, checks: ExportCheck) -> int:
    contents, ending = checks.contents, checks.ending
    assert contents is not None  # a checked export has a first line
    if invocation.json:
        invocation.screen.write_json(
            shapes.CheckedExport(
                path=file,
                events=ending.events,
                complete=contents.complete,
                after=contents.after,
                until=contents.until,
                streams=contents.streams,
                types=contents.types,
                position=contents.position,
                hash=contents.hash,
                anchor=contents.anchor,
            )
        )
        return DONE
    events = counted(ending.events, "event")
    if contents.complete:
        what = f"the whole log up to #{contents.position}"
    else:
        what = f"a part of a log that ends at #{contents.position}"
    invocation.screen.write(f"{file}: {events}, {what} {contents.hash[:12]}, verified")
    return DONE


@contextmanager
def _opened(file: str) -> Iterator[tuple[BinaryIO, bool]]:
    """Open an export; yield it, and whether it can be read twice."""
    standard = cast("io.BufferedReader", sys.stdin.buffer) if file == STREAM else None
    with open_export(standard or Path(file)) as source:
        yield source, standard.seekable() if standard else Path(file).is_file()


async def _start(storage: Storage, since: str | None, invocation: Invocation) -> int:
    """Return the position after which the events begin."""
    when = 0 if since is None else invocation.now.parse(since)
    if isinstance(when, int):
        return max(when - 1, 0)
    return await position_at(storage.store, when - timedelta(microseconds=1))


async def _end(
    storage: Storage, until: str | None, invocation: Invocation
) -> int | None:
    if until is None:
        return None
    when = invocation.now.parse(until)
    return when if isinstance(when, int) else await position_at(storage.store, when)
