"""Tasks are started in known places only, each with an owner."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("cli", "core", "events", "gateway", "presentation", "projections", "sandbox"),
    "service",
)
STARTS = {"create_task", "ensure_future", "run_coroutine_threadsafe"}

#: Where tasks are started, and who notices their end.
OWNED = {
    "cli/programs/sample_history.py _moving": "its block cancels and awaits it",
    "core/concurrency/supervisor.py running": "its block; it restarts failures",
    "core/ollama/client.py poll": "a task group",
    "core/operations/context.py cancellable_elsewhere": "its block cancels it",
    "core/operations/loads.py _recorded_if_slow": "its block cancels it",
    "core/operations/operations.py start": "a callback; whoever follows the operation",
    "core/reconcile/reconciler.py _detect": "a task group",
    "core/transfer/private_directory.py private_directory": "awaited at once",
    "events/postgres/instances.py open": "its block cancels and awaits it",
    "events/postgres/store.py close": "awaited at once",
    "events/postgres/store.py subscribe": "close(); failures() reports an outage",
    "events/sqlite/kept_head.py note": "itself: it survives errors; close()",
    "events/sqlite/store.py close": "awaited at once",
    "events/sqlite/store.py open": "awaited at once",
    "events/sqlite/store.py subscribe": "its followers, who start it again",
    "events/shared/cancellation.py finish": "awaited at once",
    "events/shared/writer.py __init__": "a callback answers everybody who waits",
    "gateway/recording/recorder.py recording": "a callback reports its early end",
    "gateway/access/quotas.py followed_quotas": "a callback reports its early end",
    "gateway/model_lists.py merge": "the exchange; close()",
    "gateway/routing/nodes.py following": "the block; a callback reports its early end",
    "gateway/relay.py relaying": "a callback reports its early end",
    "gateway/connections/server.py connect": "the exchange; close()",
    "sandbox/api/app.py _compete": "awaited at once",
    "sandbox/clock.py drive": "awaited at once",
    "sandbox/server.py serve": "the block",
    "service/api/openapi.py document_of": "the requests that wait for the document",
    "service/operations/client_operations.py _begin": "a callback ends the operation",
    "service/server.py serve": "the block; a callback reports its early end",
    "service/server.py startup": "main_loop(), which ends with its error",
}


def starts(path: Path) -> Iterator[str]:
    """Yield the functions of a module in which tasks are started."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in STARTS:
                yield f"{path.relative_to(ROOT)} {function.name}"


def test_every_task_has_an_owner_that_notices_its_end() -> None:
    modules = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    suite = ROOT / "events" / "testing"

    found = {
        one for path in modules if suite not in path.parents for one in starts(path)
    }

    assert found == set(OWNED)
