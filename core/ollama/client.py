"""The HTTP client of one Ollama server; no other module sends requests to it.

Every failure leaves it as a Herdbook error: ``connections.py`` translates exceptions of
httpx, ``failures.py`` the server's messages. No call waits forever for a dead server:
short requests have a deadline, and loads and pulls, which may take any time, use TCP
keep-alive. Closing the connection cancels a load or a pull, so such a connection is
never reused, retried or given a read timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Self

import msgspec

from herdbook.core.clock import Clock, SystemClock
from herdbook.core.errors import (
    BadAnswerError,
    BusyServerError,
    NodeTimeoutError,
    NodeUnreachableError,
    PullCutError,
    RefusedError,
    ServerFailedError,
)
from herdbook.core.observer import NO_OBSERVER, Observer
from herdbook.core.ollama.connections import Connections, Transport
from herdbook.core.ollama.entries import (
    MODELS,
    RUNNERS,
    Entry,
    Listing,
    UnreadableEntry,
    read_list,
)
from herdbook.core.ollama.failures import Request
from herdbook.core.ollama.requests import Call, ClientLimits, MissingEndpointError
from herdbook.core.ollama.restart_detection import HeldConnection
from herdbook.core.ollama.wire import (
    EmbedAnswer,
    GenerateAnswer,
    PullLine,
    RunnerEntry,
    ShowAnswer,
    TagEntry,
    VersionAnswer,
)
from herdbook.events.facts import Setting
from herdbook.events.shared.cancellation import finish

__all__ = ["ClientLimits", "OllamaClient", "PullLine", "ServerAnswers"]

SUCCESS: Final = "success"
"""The status of the last line of a successful pull; no other status is success."""

LINES_AT_ONCE: Final = 50
"""Lines of a pull that are handled before other tasks run."""

_NOT_REPORTED: Final = (
    MissingEndpointError,
    BadAnswerError,
    BusyServerError,
    NodeTimeoutError,
    NodeUnreachableError,
    RefusedError,
    ServerFailedError,
)
"""Failures of an optional endpoint, if the server answers otherwise: it has no such
endpoint, does not answer it in time or breaks off, or a proxy refuses it or answers
with a page of its own."""

OPTIONAL_SHARE: Final = 0.75
"""Share of a poll's time after which optional endpoints count as not reported, so that
what the server lists can still be recorded."""


class ServerAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of a server to one poll.

    Attributes:
        version: The server's version; empty if it is missing or not a short text.
        models: The models on the server.
        runners: The runners in memory; None if the server does not report them.
        unreadable: Entries of both lists that cannot be read.
    """

    version: str
    models: list[TagEntry]
    runners: list[RunnerEntry] | None
    unreadable: tuple[UnreadableEntry, ...] = ()


class OllamaClient:
    """A client for one server, with a connection pool; ``async with`` closes it.

    Args:
        base_url: The server's URL, without a slash at its end.
        authorization: The Authorization header of every request. A secret: it is in
            no error, event or log message.
        limits: Limits of time and size.
        clock: The clock.
        observer: Receives the duration of each request.
        transport: Replaces the connections, for tests.

    Attributes:
        base_url: The server's URL, without a slash at its end.
        authorization: The Authorization header of every request; empty for none.
        held: An idle connection, whose end shows that the server was restarted.
    """

    def __init__(
        self,
        base_url: str,
        *,
        authorization: str | None = None,
        limits: ClientLimits | None = None,
        clock: Clock | None = None,
        observer: Observer = NO_OBSERVER,
        transport: Transport | None = None,
    ) -> None:
        self.base_url = base_url
        self.authorization = authorization or ""
        self._clock = clock or SystemClock()
        self._connections = Connections(
            base_url, limits or ClientLimits(), self._clock, observer, transport
        )
        self.held = HeldConnection(base_url, self._clock)
        if authorization is not None:
            self._connections.authorize(authorization)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections, which cancels the requests on them."""
        self.held.close()
        await finish(self._connections.close())

    async def version(self) -> str:
        """Return the server's version."""
        return (
            await self._connections.answer(Call("GET", "/api/version"), VersionAnswer)
        ).version

    async def get(self, path: str) -> bytes:
        """Return the body of a successful answer, unchanged.

        Raises:
            OllamaError: The server is unreachable or refuses.
        """
        call = Call("GET", path)
        with self._connections.observed(call):
            return await self._connections.whole(call)

    async def tags(self) -> Listing[TagEntry]:
        """Return the models on the server, and the entries that cannot be read.

        Raises:
            OllamaError: The server is unreachable, refuses or answers nonsense.
        """
        return await self._listing(TagEntry, MODELS)

    async def ps(self) -> Listing[RunnerEntry]:
        """Return the runners in memory, and the entries that cannot be read."""
        return await self._listing(RunnerEntry, RUNNERS)

    async def _version_if_reported(self) -> str:
        call = Call("GET", "/api/version", optional=True)
        try:
            return (await self._connections.answer(call, VersionAnswer)).version
        except _NOT_REPORTED:
            return ""

    async def _runners_if_reported(self) -> Listing[RunnerEntry] | None:
        try:
            return await self._listing(RunnerEntry, RUNNERS, optional=True)
        except _NOT_REPORTED:
            return None

    async def _listing(
        self, kind: type[Entry], path: str, *, optional: bool = False
    ) -> Listing[Entry]:
        call, node = Call("GET", path, optional=optional), self._connections.node
        with self._connections.observed(call):
            body = await self._connections.whole(call)
            return await read_list(body, kind, source=path, node=node)

    async def poll(self, *, within_s: float) -> ServerAnswers:
        """Return version, models and runners, from concurrent requests.

        Only the list of models is required; other endpoints may be missing, hang, be
        refused by a proxy, or answered with its pages.

        Raises:
            NodeTimeoutError: It took longer than ``within_s`` seconds.
            OllamaError: The server is unreachable, refuses or answers nonsense.
        """
        began = self._clock.monotonic()
        try:
            async with self._clock.timeout(within_s), asyncio.TaskGroup() as group:
                # All three are tasks, so that they fail in the same turn if the server
                # is gone: httpcore 1.0.9 leaves a connection in its pool if the request
                # is cancelled while its connection is being closed.
                version = group.create_task(self._version_if_reported())
                models = group.create_task(self.tags())
                runners = group.create_task(self._runners_if_reported())
                listed = await models
                left_s = began + within_s - self._clock.monotonic()
                # A list that came late, as on a busy machine, says nothing about the
                # other answers, which may be there: they get half of what is left.
                optional_s = max(left_s - within_s * (1 - OPTIONAL_SHARE), left_s / 2)
                await self._cancel_after(optional_s, version, runners)
        except TimeoutError:
            raise NodeTimeoutError(self._connections.node, seconds=within_s) from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        loaded = None if runners.cancelled() else runners.result()
        return ServerAnswers(
            version="" if version.cancelled() else version.result(),
            models=listed.entries,
            runners=loaded.entries if loaded else None,
            unreadable=listed.unreadable + (loaded.unreadable if loaded else ()),
        )

    async def _cancel_after(self, seconds: float, *tasks: asyncio.Task[Any]) -> None:
        """Cancel those of some tasks that have not ended after a time."""
        if all(task.done() for task in tasks):
            return
        try:
            async with self._clock.timeout(max(seconds, 0)):
                await asyncio.wait(tasks)
        except TimeoutError:
            for task in tasks:
                task.cancel()

    async def show(self, name: str) -> ShowAnswer:
        """Return the details of one model.

        Raises:
            ModelNotFoundError: The model is not on the server.
            ModelDamagedError: The model's manifest is damaged.
            BadAnswerError: The answer does not describe a model.
        """
        call = Call("POST", "/api/show", {"model": name}, about=name)
        answer = await self._connections.answer(call, ShowAnswer)
        if not bytes(answer.details_raw).startswith(b"{"):
            # Every version of Ollama sends this object. An answer without it may come
            # from another program, so missing weights in it prove nothing.
            raise BadAnswerError(name, raw="its details are not an object")
        return answer

    async def load(
        self,
        name: str,
        *,
        options: Mapping[str, Setting] | None = None,
        keep_alive: str | float | None = None,
        embedding: bool = False,
    ) -> None:
        """Load a model into memory; return when the server reports it as loaded.

        There is no timeout. Cancelling the call closes the connection, which aborts
        the load.

        Args:
            name: The model.
            options: Options of the runner, such as ``num_ctx``.
            keep_alive: Seconds, or a duration such as ``5m``; negative keeps the
                model loaded, None uses the server's default.
            embedding: Whether it is an embedding model, which has its own endpoint.

        Raises:
            CapabilityMissingError: It is an embedding model and ``embedding`` was not
                set, or the reverse. The server also says so if the weights are gone.
            LoadFailedError: The server could not load it.
            BusyServerError: The server's queue is full.
        """
        body: dict[str, object] = {"model": name}
        if options:
            body["options"] = dict(options)
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        path = "/api/embed" if embedding else "/api/generate"
        call = Call("POST", path, body, name, Request.LOAD, endless=True)
        kind = EmbedAnswer if embedding else GenerateAnswer
        await self._connections.answer(call, kind)

    async def unload(self, name: str) -> None:
        """Ask the server to unload a model of any kind.

        Success proves nothing: the server also reports it while a request runs (and
        unloads afterwards), while the model loads (and does nothing), and if the
        model was not loaded.

        Raises:
            ModelNotFoundError: The model is not on the server.
        """
        body: dict[str, object] = {"model": name, "keep_alive": 0}
        call = Call("POST", "/api/generate", body, name, Request.CHANGE)
        await self._connections.answer(call, GenerateAnswer)

    async def delete(self, name: str) -> None:
        """Delete a model; its runner stays in memory.

        Raises:
            ModelNotFoundError: The model is not on the server.
            ModelDamagedError: The model's manifest is damaged.
        """
        body: dict[str, object] = {"model": name}
        await self._connections.ask(
            Call("DELETE", "/api/delete", body, name, Request.CHANGE)
        )

    async def copy(self, source: str, destination: str) -> None:
        """Copy a model to another name; replaces a model of that name.

        Raises:
            ModelNotFoundError: The source is not on the server.
        """
        body: dict[str, object] = {"source": source, "destination": destination}
        await self._connections.ask(
            Call("POST", "/api/copy", body, source, Request.CHANGE)
        )

    async def create(
        self, name: str, *, source: str, parameters: Mapping[str, Setting] | None = None
    ) -> None:
        """Create a model from another one's weights, with its own parameters.

        Raises:
            ServerFailedError: The server could not create it.
        """
        body: dict[str, object] = {"model": name, "from": source, "stream": False}
        if parameters:
            body["parameters"] = dict(parameters)
        call = Call("POST", "/api/create", body, name, Request.CHANGE, endless=True)
        await self._connections.ask(call)

    async def pull(
        self, name: str, *, insecure: bool = False
    ) -> AsyncGenerator[PullLine, None]:
        """Pull a model; yield the server's lines, up to ``success``.

        Closing the iterator (``contextlib.aclosing``) closes the connection, which
        cancels the pull; the server keeps the downloaded part. The time between two
        lines is not limited here: see ``PullTracker.stalled``.

        Raises:
            PullError: The pull ended without success.
            InvalidNameError: The server does not accept the name.
            OllamaError: The server is unreachable, refuses or answers nonsense.
        """
        body: dict[str, object] = {"model": name, "insecure": insecure, "stream": True}
        call = Call("POST", "/api/pull", body, name, Request.PULL, endless=True)
        with self._connections.observed(call):
            async with aclosing(self._pull_lines(call)) as lines:
                async for line in lines:
                    yield line

    async def _pull_lines(self, call: Call) -> AsyncGenerator[PullLine, None]:
        reader = self._connections.line_reader(call)
        began, count = False, 0
        try:
            async with self._connections.stream(call) as response:
                began = True
                async for chunk in response.aiter_bytes():
                    for line in reader.feed(chunk):
                        count += 1
                        if count % LINES_AT_ONCE == 0:
                            await asyncio.sleep(0)
                        yield line
                        if line.status == SUCCESS:
                            return
                for line in reader.end():
                    yield line
                    if line.status == SUCCESS:
                        return
        except NodeUnreachableError as error:
            if not began:
                raise
            raise PullCutError(call.about, raw=error.raw) from error
        raise PullCutError(call.about)
