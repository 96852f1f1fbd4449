"""One gateway for several nodes."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Any

import httpx
import pytest

from herdbook.core import Fleet, ModelState, OllamaError, RecordedEvent
from herdbook.core.clock import SystemClock
from herdbook.core.fleet.members import Members
from herdbook.events.errors import CallerError
from herdbook.events.facts import ModelUsed, NodeSettings
from herdbook.gateway.access.checks import Caller
from herdbook.gateway.access.limits import UNLIMITED, Limits
from herdbook.gateway.access.quotas import Quotas
from herdbook.gateway.recording import recorder
from herdbook.gateway.routing import nodes, router
from herdbook.gateway.routing.circuit_breaker import (
    FAILURES,
    FIRST_PAUSE_S,
    CircuitBreaker,
)
from herdbook.gateway.run import serve_gateway
from herdbook.gateway.settings import GatewaySettings
from herdbook.sandbox import RealClock, Settings, World, serve
from herdbook.sandbox.scripted_answers import ScriptedAnswer

MODEL = "llama3.2:3b"
NODES = ("a", "b", "local")
FOLLOW_EVERY_S = 0.1


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the nodes and record uses ten times as often."""
    monkeypatch.setattr(nodes, "FOLLOW_EVERY_S", FOLLOW_EVERY_S)
    monkeypatch.setattr(recorder, "COLLECT_S", 0.1)


class Servers:
    """Three sandboxes, their fleet and its gateway."""

    def __init__(
        self,
        fleet: Fleet,
        address: str,
        worlds: dict[str, World],
        urls: dict[str, str],
    ) -> None:
        self.fleet = fleet
        self.worlds = worlds
        self.urls = urls
        self.http = httpx.AsyncClient(base_url=address, timeout=20)

    async def ask(self, path: str = "/api/generate", **body: Any) -> httpx.Response:
        node = body.pop("node", None)
        given = {"model": MODEL, "prompt": "x", "stream": False} | body
        headers = {} if node is None else {"X-Herdbook-Node": node}
        return await self.http.post(path, json=given, headers=headers)

    async def refresh_all(self) -> None:
        """Refresh all nodes, and wait until the gateway has seen that."""
        for manager in self.fleet.managers():
            await manager.refresh()
        await asyncio.sleep(5 * FOLLOW_EVERY_S)

    async def events(self, kind: type) -> list[RecordedEvent]:
        store = self.fleet.log.storage.store
        return [one async for one in store.read_all() if one.type == kind.__name__]

    async def uses(self, count: int) -> dict[str, int]:
        """Wait for a number of uses; return them by node."""
        by_node: dict[str, int] = {}
        async with asyncio.timeout(10):
            while sum(by_node.values()) < count:
                by_node = {}
                for event in await self.events(ModelUsed):
                    node = event.stream.split("/")[1]
                    assert isinstance(event.data, ModelUsed)
                    count_of = event.data.count or 0
                    by_node[node] = by_node.get(node, 0) + count_of
                await asyncio.sleep(0.05)
        return by_node


@asynccontextmanager
async def several(
    *nodes: str,
    models: str = "some",
    plain: bool = False,
    roles: bool = False,
    token_s: float = 0.02,
    limits: Limits | None = None,
) -> AsyncIterator[Servers]:
    """Serve a sandbox for each of three nodes, and a gateway for some of them."""

    def authenticate(secret: str) -> Caller:
        limited = limits or UNLIMITED
        return Caller(name=secret, actor=f"api:{secret}", role="admin", limits=limited)

    async with AsyncExitStack() as stack:
        worlds, urls = {}, {}
        for name in NODES:
            worlds[name] = World(
                models=models,
                clock=RealClock(speed=20),
                settings=Settings(token_s=token_s),
            )
            urls[name] = await stack.enter_async_context(serve(worlds[name]))
        fleet = await stack.enter_async_context(
            Fleet.open(":memory:", ollama=urls["local"])
        )
        for name in nodes:
            await fleet.add(name, urls[name])
        address = await stack.enter_async_context(
            serve_gateway(
                fleet,
                GatewaySettings(port=0, plain=plain, roles=roles),
                authenticate=authenticate if limits else None,
                failed=lambda: pytest.fail("the gateway stopped"),
            )
        )
        servers = Servers(fleet, address, worlds, urls)
        await stack.enter_async_context(servers.http)
        yield servers


def three(
    models: str = "some", *, plain: bool = False, roles: bool = False
) -> AbstractAsyncContextManager[Servers]:
    return several("a", "b", models=models, plain=plain, roles=roles)


def node_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Herdbook-Node"]


async def test_request_goes_where_the_model_is_loaded_and_is_recorded_there() -> None:
    async with three() as servers:
        await servers.fleet.manager("b").load(MODEL)
        await servers.refresh_all()

        answers = [await servers.ask() for _ in range(3)]

        assert [node_of(answer) for answer in answers] == ["b", "b", "b"]
        assert await servers.uses(3) == {"b": 3}


async def test_requests_at_once_go_to_the_least_busy_node_by_weight() -> None:
    async with three() as servers:
        await servers.fleet.configure("b", NodeSettings(weight=2))
        for manager in servers.fleet.managers():
            await manager.load(MODEL)
        await servers.refresh_all()

        asked = [servers.ask(prompt=f"{number}") for number in range(8)]
        nodes = [node_of(answer) for answer in await asyncio.gather(*asked)]

        assert {name: nodes.count(name) for name in NODES} == {
            "a": 2,
            "b": 4,
            "local": 2,
        }


async def test_conversation_stays_on_its_node() -> None:
    async with three() as servers:
        for manager in servers.fleet.managers():
            await manager.load(MODEL)
        await servers.refresh_all()

        def chat(topic: str, turns: int) -> Any:
            messages = [{"role": "user", "content": topic}]
            messages += [{"role": "assistant", "content": "yes"}] * (turns - 1)
            messages += [{"role": "user", "content": f"and {turns}?"}] * (turns > 1)
            return servers.ask("/api/chat", messages=messages)

        topics = [f"topic {number}" for number in range(6)]
        first = await asyncio.gather(*(chat(topic, 1) for topic in topics))
        homes = {topic: node_of(one) for topic, one in zip(topics, first, strict=True)}
        assert set(homes.values()) == set(NODES)
        for topic in topics:
            for turns in (2, 3):
                assert node_of(await chat(topic, turns)) == homes[topic]


async def test_node_that_died_is_left_out_and_its_request_answered_elsewhere() -> None:
    async with three() as servers:
        await servers.fleet.manager("a").load(MODEL)
        await servers.refresh_all()
        assert node_of(await servers.ask()) == "a"
        servers.worlds["a"].kill()

        answers = [await servers.ask(prompt=f"{number}") for number in range(FAILURES)]

        assert all(node_of(answer) in ("b", "local") for answer in answers)
        uses = await servers.uses(1 + FAILURES)
        assert uses["a"] == 1


async def test_request_leaves_a_node_that_hangs_and_its_conversation_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with three() as servers:
        for manager in servers.fleet.managers():
            await manager.load(MODEL)
        await servers.refresh_all()
        assert node_of(await servers.ask()) == "a"
        answers = servers.worlds["a"].answers
        answers.script(ScriptedAnswer(path="/api/generate", times=0, hang=True))
        answers.script(ScriptedAnswer(times=0))
        waiting = asyncio.create_task(servers.ask())
        with pytest.raises(OllamaError):
            await servers.fleet.manager("a").refresh()
        await asyncio.sleep(3 * FOLLOW_EVERY_S)

        assert node_of(await servers.ask()) == "b"
        assert not waiting.done()
        monkeypatch.setattr(router, "HUNG_AFTER_S", 0.0)
        assert node_of(await waiting) in ("b", "local")


async def test_use_that_a_node_cannot_serve_is_answered_by_another_one() -> None:
    async with three() as servers:
        await servers.fleet.manager("a").load(MODEL)
        await servers.refresh_all()
        broken = ScriptedAnswer(path="/api/generate", times=0, status=500, body="{}")
        servers.worlds["a"].answers.script(broken)

        answers = [await servers.ask(prompt=f"{number}") for number in range(4)]

        assert all(node_of(answer) in ("b", "local") for answer in answers)
        assert set(await servers.uses(4)) <= {"b", "local"}
        servers.worlds["a"].answers.clear()
        await servers.fleet.manager("b").unload(MODEL)
        await servers.fleet.manager("local").unload(MODEL)
        await servers.refresh_all()
        assert node_of(await servers.ask(prompt="5")) != "a"  # it rests


async def test_use_of_a_model_that_its_node_lost_is_answered_by_another_one() -> None:
    async with three() as servers:
        await servers.fleet.manager("a").load(MODEL)
        await servers.refresh_all()
        async with httpx.AsyncClient(base_url=servers.urls["a"]) as http:
            await http.request("DELETE", "/api/delete", json={"model": MODEL})
        assert node_of(await servers.ask()) in ("b", "local")
        assert (await servers.ask(node="a")).status_code == 404


async def test_failure_that_all_nodes_report_is_that_of_the_request() -> None:
    async with three() as servers:
        broken = ScriptedAnswer(path="/api/generate", times=0, status=500, body="{}")
        for world in servers.worlds.values():
            world.answers.script(broken)
        answers = [await servers.ask(prompt=f"{number}") for number in range(4)]
        assert {answer.status_code for answer in answers} == {500}
        for world in servers.worlds.values():
            world.answers.clear()
        await servers.fleet.manager("a").load(MODEL)
        await servers.refresh_all()
        assert node_of(await servers.ask(prompt="5")) == "a"


async def test_answer_that_has_begun_is_cut_off_when_its_node_dies() -> None:
    async with three() as servers:
        await servers.fleet.manager("a").load(MODEL)
        await servers.refresh_all()
        body = {"model": MODEL, "prompt": "x", "options": {"num_predict": 2_000}}
        async with servers.http.stream("POST", "/api/generate", json=body) as answer:
            assert answer.headers["X-Herdbook-Node"] == "a"
            lines = answer.aiter_lines()
            await anext(lines)
            servers.worlds["a"].kill()
            with pytest.raises(httpx.RemoteProtocolError):
                _ = [line async for line in lines]


async def test_node_that_dies_under_load_loses_only_its_running_streams() -> None:
    """Each client sees a whole answer, or one that node "a" had begun; so does the log.

    Requests that "a" had not begun to answer are answered by "b".
    """
    begun, completed, cut = Counter[str](), Counter[str](), Counter[str]()
    going, numbers = True, itertools.count()

    async def ask(servers: Servers) -> None:
        while going:
            prompt = f"{next(numbers)}"  # each is another conversation
            body = {"model": MODEL, "prompt": prompt, "options": {"num_predict": 40}}
            asked = servers.http.stream("POST", "/api/generate", json=body)
            async with asked as answer:
                node = node_of(answer)
                begun[node] += 1
                try:
                    lines = [line async for line in answer.aiter_lines()]
                except httpx.RemoteProtocolError:
                    cut[node] += 1
                    continue
                assert json.loads(lines[-1])["done"] is True
                completed[node] += 1

    async with several("a", "b", token_s=0.2) as servers:
        for name in ("a", "b"):
            await servers.fleet.manager(name).load(MODEL)
        await servers.refresh_all()
        async with asyncio.TaskGroup() as clients:
            for _ in range(16):
                clients.create_task(ask(servers))
            async with asyncio.timeout(20):
                while min(completed["a"], completed["b"]) < 4:
                    await asyncio.sleep(0.01)
                before = begun["a"]
                while begun["a"] == before:
                    await asyncio.sleep(0.01)
                servers.worlds["a"].kill()
                before = completed["b"]
                while completed["b"] < before + 24:
                    await asyncio.sleep(0.01)
            going = False

        assert set(cut) == {"a"}
        assert 1 <= cut["a"] <= 16
        total = completed + cut
        assert await servers.uses(total.total()) == total


async def test_drained_node_gets_no_new_requests_and_restrictions_are_hard() -> None:
    async with three() as servers:
        await servers.fleet.configure("a", NodeSettings(drained=True))
        await servers.fleet.configure("b", NodeSettings(models=("qwen*",)))
        await servers.refresh_all()
        assert [node_of(await servers.ask()) for _ in range(2)] == ["local", "local"]

        await servers.fleet.configure("a", NodeSettings(models=("qwen*",)))
        await servers.fleet.add(
            "local", servers.fleet.manager("local").url, NodeSettings(drained=True)
        )
        await servers.refresh_all()
        refused = await servers.ask()
        assert refused.status_code == 503
        assert refused.json()["error"] == (
            f"'{MODEL}' is on a, b, local, which cannot run it now: a accepts only "
            "qwen*; b accepts only qwen*; local is drained."
        )
        only_b = await servers.ask(node="b")
        assert only_b.status_code == 503
        assert "is on b, which cannot run it now: b accepts" in only_b.json()["error"]


async def test_node_with_the_weight_0_is_only_used_if_no_other_can_be() -> None:
    async with three() as servers:
        await servers.fleet.manager("a").load(MODEL)
        await servers.fleet.configure("a", NodeSettings(weight=0))
        await servers.fleet.configure("local", NodeSettings(drained=True))
        await servers.refresh_all()
        assert node_of(await servers.ask()) == "b"
        servers.worlds["b"].kill()
        assert node_of(await servers.ask()) == "a"


async def test_what_a_client_did_counts_before_the_log_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "COLLECT_S", 100.0)
    async with three() as servers:
        assert node_of(await servers.ask(node="local")) == "local"
        assert node_of(await servers.ask()) == "local"  # it is in memory there

        for path, fields in (
            ("/api/copy", {"source": MODEL, "destination": "mine"}),
            ("/api/create", {"model": "mine", "from": MODEL}),
            ("/api/pull", {"model": "mine"}),
        ):
            made = await servers.http.post(
                path, json=fields, headers={"X-Herdbook-Node": "b"}
            )
            assert made.headers["X-Herdbook-Node"] == "b"
            if path != "/api/pull":  # the registry does not have it
                assert node_of(await servers.ask(model="mine")) == "b"
                assert node_of(await servers.ask("/api/show", model="mine")) == "b"
            deleted = await servers.http.request(
                "DELETE", "/api/delete", json={"model": "mine"}
            )
            assert deleted.headers["X-Herdbook-Node"] == "b"


async def test_copy_replaces_a_model_of_its_name() -> None:
    async with three() as servers:
        fields = {"source": MODEL, "destination": "mine"}
        named = {"X-Herdbook-Node": "local"}
        await servers.http.post("/api/copy", json=fields, headers=named)
        await servers.refresh_all()
        copied = await servers.http.post("/api/copy", json=fields)
        assert copied.headers["X-Herdbook-Node"] == "local"


async def test_client_can_demand_a_node() -> None:
    async with three() as servers:
        version = await servers.http.get(
            "/api/version", headers={"X-Herdbook-Node": "b"}
        )
        assert node_of(version) == "b"
        assert node_of(await servers.ask(node="b")) == "b"
        unknown = await servers.ask(node="c")
        assert unknown.status_code == 404
        assert "There is no node 'c'" in unknown.json()["error"]


async def test_lists_of_all_nodes_are_one() -> None:
    async with three("none") as servers:
        for name, model in (("a", "llama3.2:1b"), ("b", MODEL), ("local", MODEL)):
            async for _ in servers.fleet.manager(name).pull(model):
                pass
            await servers.fleet.manager(name).load(model)
        await servers.refresh_all()

        tags = await servers.http.get("/api/tags")
        ps = await servers.http.get("/api/ps")
        cards = await servers.http.get("/v1/models")

        assert tags.headers["X-Herdbook-Node"] == "a, b, local"
        names = [one["name"] for one in tags.json()["models"]]
        assert names == ["llama3.2:1b", MODEL]
        running = [one["name"] for one in ps.json()["models"]]
        assert running == ["llama3.2:1b", MODEL, MODEL]
        assert cards.json()["object"] == "list"
        assert [one["id"] for one in cards.json()["data"]] == names

        servers.worlds["a"].kill()
        left = await servers.http.get("/api/tags")
        assert [one["name"] for one in left.json()["models"]] == [MODEL]
        assert left.headers["X-Herdbook-Node"] == "b, local"


async def test_role_is_answered_by_the_best_place_and_listed() -> None:
    async with three(roles=True) as servers:
        best = await servers.fleet.manager("b").recommend("coding")
        assert best is not None
        await servers.fleet.manager("b").load(best.name)
        await servers.refresh_all()

        answer = await servers.ask(model="role:coding")

        assert node_of(answer) == "b"
        assert answer.headers["X-Herdbook-Model"] == best.name
        assert answer.headers["X-Herdbook-Reason"].startswith(
            "role coding: loaded and idle on b"
        )
        tags = (await servers.http.get("/api/tags")).json()["models"]
        assert "role:coding" in [one["name"] for one in tags]


async def test_first_model_of_a_list_that_any_node_has_is_used() -> None:
    async with three("none") as servers:
        async for _ in servers.fleet.manager("b").pull(MODEL):
            pass
        await servers.refresh_all()
        answer = await servers.ask(model=f"nosuch:1b,{MODEL}")
        assert node_of(answer) == "b"
        assert answer.headers["X-Herdbook-Model"] == MODEL


async def test_role_and_list_are_answered_by_models_of_the_token() -> None:
    limits = Limits(models=("llama3*",))
    async with several("a", limits=limits) as servers:
        servers.http.headers["Authorization"] = "Bearer ann"
        await servers.fleet.manager("a").load(MODEL)
        await servers.refresh_all()
        other = "qwen2.5-coder:7b"
        listed = await servers.ask(model=f"{other},{MODEL}")
        assert node_of(listed) == "a"
        assert listed.headers["X-Herdbook-Model"] == MODEL
        none = await servers.ask(model=f"nosuch:1b,{other}")
        assert none.status_code == 403
        assert "The token may use none of the present models" in none.text
        role = await servers.ask(model="role:coding")
        assert role.status_code == 403
        assert "No model that the token may use fits the role" in role.text


async def test_models_are_pulled_where_there_is_room_and_deleted_by_node() -> None:
    async with three("none") as servers:
        await servers.fleet.configure("b", NodeSettings(tags={"ram": "64GB"}))
        await servers.refresh_all()

        pulled = await servers.ask("/api/pull", model=MODEL)
        assert node_of(pulled) == "b"
        async with asyncio.timeout(10):
            while await servers.fleet.on_which(MODEL) != ["b"]:
                await asyncio.sleep(0.05)

        async for _ in servers.fleet.manager("a").pull(MODEL):
            pass
        await servers.refresh_all()
        several = await servers.http.request(
            "DELETE", "/api/delete", json={"model": MODEL}
        )
        assert several.status_code == 409
        assert "is on a, b" in several.json()["error"]
        deleted = await servers.http.request(
            "DELETE",
            "/api/delete",
            json={"model": MODEL},
            headers={"X-Herdbook-Node": "a"},
        )
        assert deleted.status_code == 200
        async with asyncio.timeout(10):
            while await servers.fleet.on_which(MODEL) != ["b"]:
                await asyncio.sleep(0.05)


async def test_changes_go_to_nodes_that_answer_and_may_have_the_model() -> None:
    async with three("none") as servers:
        await servers.fleet.configure("a", NodeSettings(max_model_bytes=1_000_000_000))
        await servers.refresh_all()
        assert node_of(await servers.ask("/api/pull", model=MODEL)) == "b"
        invalid = await servers.ask("/api/pull", model="a b")
        assert invalid.status_code == 400, invalid.text

        for name in ("a", "b"):
            servers.worlds[name].kill()
            with pytest.raises(OllamaError):
                await servers.fleet.manager(name).refresh()
        await asyncio.sleep(5 * FOLLOW_EVERY_S)
        assert node_of(await servers.ask("/api/pull", model=MODEL)) == "local"
        digest = hashlib.sha256(b"x").hexdigest()
        uploaded = await servers.http.post(f"/api/blobs/sha256:{digest}", content=b"x")
        assert uploaded.status_code == 201
        assert uploaded.headers["X-Herdbook-Node"] == "local"


async def test_models_are_made_on_nodes_that_may_have_them() -> None:
    async with three() as servers:
        await servers.fleet.configure("a", NodeSettings(models=("llama*",)))
        await servers.refresh_all()

        async def made(path: str, **fields: Any) -> httpx.Response:
            return await servers.http.post(path, json={"stream": False} | fields)

        copy = {"source": MODEL, "destination": "mine"}
        assert node_of(await made("/api/copy", **copy)) == "b"
        allowed = {"source": MODEL, "destination": "llama-of-mine"}
        assert node_of(await made("/api/copy", **allowed)) == "a"
        assert (
            node_of(await made("/api/create", model="brief", **{"from": MODEL})) == "b"
        )

        # Its files are sent before its name, and both to the same node.
        content = b"GGUF"
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blob = await servers.http.post(f"/api/blobs/{digest}", content=content)
        files = await made("/api/create", model="other", files={"x.gguf": digest})
        assert blob.headers["X-Herdbook-Node"] == "b"
        assert files.headers["X-Herdbook-Node"] == "b"

        for name in ("b", "local"):
            await servers.fleet.configure(name, NodeSettings(drained=True))
        await servers.refresh_all()
        refused = await made("/api/copy", source=MODEL, destination="yours")
        assert refused.status_code == 409
        assert refused.json()["error"] == (
            "'yours:latest' cannot be placed on a node: a accepts only llama*; "
            "b is drained; local is drained."
        )


async def test_model_is_not_pulled_again_to_a_node_that_is_drained_since() -> None:
    async with three("none") as servers:
        await servers.fleet.configure("b", NodeSettings(tags={"ram": "64GB"}))
        await servers.refresh_all()
        assert node_of(await servers.ask("/api/pull", model=MODEL)) == "b"
        await servers.http.request("DELETE", "/api/delete", json={"model": MODEL})
        await servers.fleet.configure("b", NodeSettings(drained=True))
        await servers.refresh_all()

        assert node_of(await servers.ask("/api/pull", model=MODEL)) == "a"


async def test_model_of_a_node_that_is_not_open_is_not_missing() -> None:
    async with three("none") as servers:
        async for _ in servers.fleet.manager("a").pull(MODEL):
            pass
        await servers.fleet.remove("a")
        live = servers.fleet.log.live
        elsewhere = Members(live, clock=SystemClock(), actor="cli:ann")
        await elsewhere.add("a", servers.urls["a"], NodeSettings())
        await asyncio.sleep(3 * FOLLOW_EVERY_S)

        reason = "it is being opened. Try again in a few seconds."
        used = await servers.ask()
        assert (used.status_code, used.json()["error"]) == (
            503,
            f"'{MODEL}' is on a, which cannot be used now: {reason}",
        )
        demanded = await servers.ask(node="a")
        assert (demanded.status_code, demanded.json()["error"]) == (
            503,
            f"Node 'a' cannot be used now: {reason}",
        )
        assert (await servers.ask(model="nosuch:1b")).status_code == 404


async def test_lists_do_not_wait_long_for_a_lost_node_that_hangs() -> None:
    async with three() as servers:
        servers.worlds["a"].kill()
        with pytest.raises(OllamaError):
            await servers.fleet.manager("a").refresh()
        servers.worlds["a"].start()
        hanging = ScriptedAnswer(path="/api/tags", times=0, hang=True)
        servers.worlds["a"].answers.script(hanging)
        await asyncio.sleep(3 * FOLLOW_EVERY_S)

        async with asyncio.timeout(GatewaySettings().connect_within_s / 2):
            tags = await servers.http.get("/api/tags")

        assert tags.headers["X-Herdbook-Node"] == "b, local"


async def test_model_that_no_node_has_gets_the_answer_of_a_server() -> None:
    async with three("none") as servers:
        missing = await servers.ask(model="nosuch:1b")
        assert missing.status_code == 404
        paths = [one.path for each in servers.worlds.values() for one in each.seen]
        assert paths.count("/api/generate") == 1
        assert json.loads(missing.text) == {"error": "model 'nosuch:1b' not found"}


async def test_nodes_come_and_go_while_the_gateway_runs() -> None:
    async with three() as servers:
        url = servers.fleet.manager("a").url
        await servers.fleet.remove("a")
        await servers.fleet.remove("b")
        await asyncio.sleep(1.5 * FOLLOW_EVERY_S)
        assert "X-Herdbook-Node" not in (await servers.ask()).headers

        await servers.fleet.add("c", url)
        await servers.fleet.manager("c").load(MODEL)
        await servers.fleet.manager("local").unload(MODEL)
        await servers.refresh_all()
        assert node_of(await servers.ask()) == "c"


async def test_gateway_that_began_with_one_node_serves_those_added_later() -> None:
    async with several() as servers:
        tags = await servers.http.get("/api/tags")
        assert "X-Herdbook-Node" not in tags.headers

        await servers.fleet.add("a", servers.urls["a"])
        await servers.fleet.manager("a").load(MODEL)
        await servers.refresh_all()

        assert node_of(await servers.ask()) == "a"
        assert await servers.uses(1) == {"a": 1}
        tags = await servers.http.get("/api/tags")
        assert tags.headers["X-Herdbook-Node"] == "a, local"


async def test_nodes_that_were_opened_are_closed_when_another_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Any] = []
    closed: list[Any] = []
    settings = GatewaySettings()

    @asynccontextmanager
    async def recording(uses: Any, **given: Any) -> AsyncIterator[Any]:
        if opened:
            raise CallerError("the second node", "cannot be opened")
        opened.append(uses)
        yield None
        closed.append(uses)

    async with three() as servers:
        monkeypatch.setattr(nodes, "recording", recording)
        following = nodes.Nodes(
            servers.fleet, settings, Quotas(), lambda: None
        ).following()
        with pytest.raises(CallerError, match="the second node"):
            async with following:
                pass
    assert closed == opened


async def test_gateway_keeps_serving_when_its_first_node_is_removed() -> None:
    async with several("a") as servers:
        await servers.fleet.remove("local")
        await servers.refresh_all()
        assert (await servers.ask()).status_code == 200
        assert await servers.uses(1) == {"a": 1}


async def test_gateway_sends_nothing_to_a_node_with_its_own_address() -> None:
    async with several() as servers:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with serve_gateway(
            servers.fleet,
            GatewaySettings(port=port),
            authenticate=None,
            failed=lambda: pytest.fail("the gateway stopped"),
        ) as address:
            await servers.fleet.add("loop", address)
            await asyncio.sleep(1.5 * FOLLOW_EVERY_S)
            asked = httpx.AsyncClient(base_url=address, timeout=20)
            async with asked as http:
                answer = await http.get("/api/tags")
            assert answer.status_code == 200
            assert "X-Herdbook-Node" not in answer.headers


async def test_load_by_a_client_is_recorded_on_its_node() -> None:
    async with three() as servers:
        answer = await servers.ask(prompt="", node="a")
        assert node_of(answer) == "a"
        manager = servers.fleet.manager("a")
        async with asyncio.timeout(10):
            while (await manager.get_status(MODEL)).state is not ModelState.LOADED:
                await asyncio.sleep(0.05)
        elsewhere = await servers.fleet.manager("b").get_status(MODEL)
        assert elsewhere.state is ModelState.AVAILABLE


def test_node_that_fails_rests_and_gets_one_request_to_try_again() -> None:
    now = 0.0
    breaker = CircuitBreaker(lambda: now)
    for _ in range(FAILURES):
        assert breaker.allows
        breaker.begin()
        breaker.failed()
    seen = [breaker.allows]
    now = FIRST_PAUSE_S
    seen.append(breaker.allows)
    breaker.begin()
    seen.append(breaker.allows)  # one at a time
    breaker.failed()
    now = 2 * FIRST_PAUSE_S
    seen.append(breaker.allows)  # it rests twice as long
    now = 3 * FIRST_PAUSE_S
    seen.append(breaker.allows)
    breaker.begin()
    breaker.succeeded()
    seen.append(breaker.allows and breaker.closed)

    assert seen == [False, True, False, False, True, True]
