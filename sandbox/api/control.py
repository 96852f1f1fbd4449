"""Control a sandbox over HTTP, for tests and scripts in other processes.

Invariant: these paths are answered even while the simulated server is down.
"""

from __future__ import annotations

import msgspec

from herdbook.sandbox.api.responses import Answer, json_answer, refusal_answer
from herdbook.sandbox.clock import let_others_run, pass_time
from herdbook.sandbox.faults import apply_step
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.request_bodies import Json
from herdbook.sandbox.world import World


class _Move(msgspec.Struct, forbid_unknown_fields=True):
    advance: float


async def answer(world: World, path: str, raw: bytes) -> Answer:
    """Answer one of the sandbox's own paths.

    ``POST /sandbox/did`` and ``/sandbox/faults`` take a step of ``faults.py``.
    ``POST /sandbox/clock`` takes ``{"advance": seconds}`` and answers after the
    timers that fall due. ``GET /sandbox/seen`` lists the requests received.
    """
    try:
        return await _answer(world, path, raw)
    except Refusal as refusal:
        return refusal_answer(refusal.status, refusal.text)
    except msgspec.MsgspecError as error:
        return refusal_answer(400, str(error))


async def _answer(world: World, path: str, raw: bytes) -> Answer:
    match path:
        case "/sandbox/did" | "/sandbox/faults":
            apply_step(world, msgspec.json.decode(raw, type=Json))
        case "/sandbox/clock":
            if raw:
                move = msgspec.json.decode(raw, type=_Move)
                await pass_time(world.clock, move.advance)
        case "/sandbox/seen":
            return json_answer(
                {"seen": [msgspec.to_builtins(one) for one in world.seen]}
            )
        case _:
            raise Refusal(404, f"nothing at {path}")
    await let_others_run()
    return json_answer({"now": world.clock.now(), "down": world.down})
