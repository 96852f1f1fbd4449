"""Random histories of loads, uses, unloads and disconnections end well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from herdbook.sandbox import Settings, World, let_others_run

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = ("plain", "llama3.2:1b", "llava:7b", "qwen3:0.6b", "llama3.1:8b")
ACTIONS = st.one_of(
    st.tuples(st.just("load"), st.sampled_from(MODELS)),
    st.tuples(st.just("use"), st.sampled_from(MODELS)),
    st.tuples(st.just("unload"), st.sampled_from(MODELS)),
    st.tuples(st.just("close"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from((0.01, 0.3, 2.0))),
    st.tuples(st.just("kill"), st.just(None)),
)
BODIES: dict[str, dict[str, Any]] = {
    "load": {"keep_alive": "1m"},
    "use": {"prompt": "a", "options": {"num_predict": 50}},
    "unload": {"keep_alive": 0},
}


class History:
    """A world with little room, and all that was asked of it."""

    def __init__(self, converse: Callable[[World, dict[str, Any]], Any]) -> None:
        self.world = World(models="herd", settings=Settings(max_loaded=2, max_queue=3))
        self.exchanges: list[Any] = []
        self._converse = converse

    async def do(self, verb: str, value: Any) -> None:
        if verb in BODIES:
            asked = {"model": value} | BODIES[verb]
            request = {"method": "POST", "path": "/api/generate", "json": asked}
            self.exchanges.append(self._converse(self.world, request))
        elif verb == "close" and value < len(self.exchanges):
            await self.exchanges[value].close()
        elif verb == "wait":
            self.world.clock.advance(value)
        elif verb == "kill":
            self.world.runners.kill()
        await let_others_run()
        assert len(self.world.runners.listed()) <= 2

    async def end(self) -> None:
        """Leave everything time to come to its end."""
        for _ in range(len(self.exchanges) + 3):
            self.world.clock.advance(600.0)
            await let_others_run(50)


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25))
def test_every_request_ends_and_memory_is_freed(
    actions: list[Any], converse: Callable[..., Any]
) -> None:
    async def run() -> None:
        history = History(converse)
        for verb, value in actions:
            await history.do(verb, value)
        await history.end()

        assert all(exchange.task.done() for exchange in history.exchanges)
        assert {exchange.status for exchange in history.exchanges} <= {None, 200, 503}
        assert history.world.runners.listed() == []

    asyncio.run(run())
