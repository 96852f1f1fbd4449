"""The signature of an archive: over its file, its boundary, and the state there.

The text that is signed has a line for each part of ``LogArchived``, in the form of
https://c2sp.org/signed-note:

    herdbook-archive/1
    herdbook/01a21c7f-51d1-7697-9e2f-946528c79be7     origin: id of the first event
    1 2048                                            first and last position
    jPkD…=                                            root of the Merkle tree, base64
    chain 571b50e4…                                   hash of the last event
    file 9e0cd1…                                      SHA-256 of the file
    view recommendation/3 51d87f…                     checksum of each view, by name
    view status/5 0b6ae2…

    — alice cvAyb…                                    the signature
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from pathlib import Path

from herdbook.core.checks.archives import announcement
from herdbook.core.log.storage import Storage
from herdbook.core.proof import keys
from herdbook.core.proof.anchor import parse_signatures
from herdbook.events.errors import CorruptLogError
from herdbook.events.facts import LogArchived
from herdbook.events.findings import Finding, Kind
from herdbook.events.store import ArchivedStore

FORMAT = "herdbook-archive/1"


def statement(fact: LogArchived) -> str:
    """Return the text that is signed."""
    root = base64.b64encode(bytes.fromhex(fact.root)).decode()
    views = [f"view {name} {checksum}" for name, checksum in sorted(fact.views.items())]
    lines = [
        FORMAT,
        fact.origin,
        f"{fact.first} {fact.last}",
        root,
        f"chain {fact.hash}",
        f"file {fact.sha256}",
        *views,
    ]
    return "\n".join(lines) + "\n"


def sign(fact: LogArchived, key: Path) -> str:
    """Return the signature of an archive, one line.

    Args:
        fact: The archive.
        key: The file of the private key; its public key is next to it.

    Raises:
        CallerError: The key cannot be read.
    """
    return keys.sign_text(statement(fact), key).line()


async def check_signatures(
    storage: Storage, public: Collection[keys.PublicKey]
) -> list[Finding]:
    """Return a finding for each archive that none of some keys has signed.

    Raises:
        StoreError: The log cannot be read.
    """
    store = storage.store
    if not public or not isinstance(store, ArchivedStore):
        return []
    found: list[Finding] = []
    for archive in await store.archives():
        try:
            fact = await announcement(storage, archive)
        except CorruptLogError:
            fact = None
        if fact is None:
            continue  # as verify reports
        signatures = parse_signatures(fact.signature, source=archive.file)
        if not any(key.has_signed_text(statement(fact), signatures) for key in public):
            message = (
                f"the archive {archive.file} is not signed by any of the given keys"
            )
            found.append(Finding(position=0, kind=Kind.ARCHIVE, message=message))
    return found
