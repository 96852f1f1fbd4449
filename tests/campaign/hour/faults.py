"""Faults of a server: no answer, invalid answers, a full disk, no registry."""

from __future__ import annotations

import base64
from random import Random

from support.manager_fixture import SandboxServer

from herdbook import sandbox

Script = dict[str, object]

PATHS = ("", "/api/version", "/api/tags", "/api/ps", "/api/show", "/api/show")
PATHS_OF_WORK = ("/api/pull", "/api/generate", "/api/embed", "/api/delete")

_JSON = {"content-type": "application/json"}


SERVER_ERROR = "an error"
"""Ollama's own error for a model that it cannot show. It counts as an answer, so
only the list is left, which does not say which model a runner belongs to."""


def _answer(body: str) -> Script:
    return {"status": 200, "headers": _JSON, "body": body}


def _answer_of_bytes(body: bytes) -> Script:
    raw = base64.b64encode(body).decode()
    return {"status": 200, "headers": _JSON, "body_base64": raw}


INVALID_ANSWERS: dict[str, Script] = {
    "a number for models": _answer('{"models":7,"version":1,"details":[]}'),
    "models that are numbers": _answer('{"models":[1,2],"version":[],"details":""}'),
    "a model without a digest": _answer('{"models":[{"name":"plain:latest"}]}'),
    "a digest that is a number": _answer('{"models":[{"name":"a:b","digest":5}]}'),
    "an object that says nothing": _answer("{}"),
    "a list": _answer("[]"),
    "null": _answer("null"),
    "nothing": _answer(""),
    "an error with a good status": _answer('{"error":"upstream"}'),
    "half an answer": _answer('{"models":[{"name":"plain:la'),
    "deeper than anybody reads": _answer("[" * 100_000),
    "no UTF-8": _answer_of_bytes(b"\xff\xfe\x00"),
    "no UTF-8 in a name": _answer_of_bytes(b'{"models":[{"name":"\xff","digest":""}]}'),
    "HTML from a proxy": {"body": "<html>Bad Gateway</html>"},
    "HTML with a good status": {"status": 200, "body": "<html>Log in</html>"},
    "a refusal": {"status": 401, "body": '{"error":"unauthorized"}'},
    SERVER_ERROR: {"status": 500, "headers": _JSON, "body": '{"error":"boom"}'},
    "busy": {"status": 503, "headers": _JSON, "body": '{"error":"server busy"}'},
    "a redirect": {"status": 302, "headers": {"location": "http://127.0.0.1:1/"}},
    "a redirect to itself": {"status": 307, "headers": {"location": "/api/tags"}},
    "a stream without end": _answer("x" * 2**16) | {"repeat": True},
    "a line of 100 MB": _answer("x" * 100_000_000),
    "a cut": {"cut": True, "body": '{"models":['},
    "silence": {"hang": True},
    "silence after a beginning": {"hang": True, "status": 200, "body": '{"mod'},
    "patience, then the truth": {"delay_s": 4.0, "truthful": True},
    "more patience than there is": {"delay_s": 40.0, "truthful": True},
}
"""Answers that no Ollama server gives."""

REGISTRY: tuple[dict[str, object], ...] = (
    {"reset_after": 1000},
    {"stall_after": 5000},
    {"corrupt": True},
    {"manifest_status": 500, "manifest_body": "no"},
    {"unreachable": "dial tcp: i/o timeout"},
    {"rate": 1e5},
)
"""Faults of the registry."""


def script_invalid_answers(server: SandboxServer, chance: Random, which: str) -> str:
    """Script invalid answers, a few or until the calm; return the path."""
    path = chance.choice(PATHS + PATHS_OF_WORK)
    if which == SERVER_ERROR and path in {"", "/api/show"}:
        path = "/api/tags"
    huge = len(str(INVALID_ANSWERS[which].get("body"))) > 2**20
    times = 1 if huge else chance.choice([1, 1, 3, 0])
    server.apply(answer={"path": path, "times": times, **INVALID_ANSWERS[which]})
    return f"{which} at {path or 'all'}, {times or 'all'} times"


def stop(server: SandboxServer, chance: Random) -> None:
    """Stop the server, if it runs."""
    if not server.world.down:
        server.apply(server=chance.choice(["killed", "stopped"]))


def end_faults(server: SandboxServer, chance: Random) -> None:
    """End all faults; a server that was stopped may have another version then."""
    server.apply(answer=None, registry={}, disk_bytes=None, runner_dies_saying=None)
    server.apply(unload_lag_s=0.0, runner_start_delay_s=0.0)
    if server.world.down:
        server.world.profile = chance.choice([sandbox.CURRENT, sandbox.OLDER])
        server.apply(server="started")


def is_healthy(server: SandboxServer) -> bool:
    """Return whether the server runs and has no scripted answers."""
    return not server.world.down and not server.world.answers._left
