"""Lists of models: merged from all nodes, with roles, without other models."""

from __future__ import annotations

import asyncio

from herdbook.gateway.access.checks import Caller
from herdbook.gateway.connections.exchange import Exchange
from herdbook.gateway.connections.server import UNREACHABLE
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.endpoints import Endpoint
from herdbook.gateway.protocol.headers import values_of
from herdbook.gateway.rewriting.lists import LISTS, PS, changed_list, merged_list
from herdbook.gateway.routing.upstreams import NODE_HEADER, IncomingRequest, Router


class ModelLists:
    """Answers of the gateway that list models.

    Args:
        router: Knows the nodes.
        roles: Whether lists contain the roles as models.
    """

    def __init__(self, router: Router, *, roles: bool) -> None:
        self._router = router
        self._roles = roles
        self._merging: set[asyncio.Task[None]] = set()

    @staticmethod
    def handles(method: str, path: str) -> bool:
        """Return whether a request asks for a list of models."""
        return method == "GET" and path in LISTS

    def change(self, exchange: Exchange, endpoint: Endpoint, caller: Caller) -> None:
        """Add roles to a list that is relayed, and leave out what must not be used."""
        if not self._roles and not caller.limits.models:
            return

        def change(status: int, body: bytes) -> bytes:
            return body if status != 200 else self._changed(endpoint, caller, body)

        exchange.change_answer(change)

    def merge(self, exchange: Exchange, incoming: IncomingRequest) -> None:
        """Answer with the lists of all nodes as one."""
        merging = asyncio.ensure_future(self._answer_merged(exchange, incoming))
        self._merging.add(merging)
        merging.add_done_callback(self._merging.discard)

    async def close(self) -> None:
        """Stop merging lists."""
        for merging in self._merging:
            merging.cancel()
        if self._merging:
            await asyncio.wait(self._merging)

    async def _answer_merged(
        self, exchange: Exchange, incoming: IncomingRequest
    ) -> None:
        path = incoming.endpoint.path
        lists = await self._router.lists(path)
        if exchange.ended:  # the client left meanwhile
            return
        if not lists:
            exchange.server_failed(Refusal(502, "No node answers."), UNREACHABLE)
            return
        merged = merged_list(path, [body for _, body in lists])
        body = self._changed(incoming.endpoint, incoming.caller, merged)
        names = ", ".join(name for name, _ in lists).encode()
        headers = [
            (b"Content-Type", b"application/json; charset=utf-8"),
            (b"Content-Length", b"%d" % len(body)),
            (NODE_HEADER, names),
        ]
        exchange.answer_head(200, b"OK", headers, values_of(headers))
        exchange.answer_body([body])
        exchange.answer_end(reusable=False)

    def _changed(self, endpoint: Endpoint, caller: Caller, body: bytes) -> bytes:
        adds_roles = self._roles and endpoint.path != PS
        return changed_list(
            endpoint.path,
            body,
            recommend=self._router.recommend if adds_roles else None,
            allowed=caller.limits.allow,
        )
