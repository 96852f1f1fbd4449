"""Servers that differ from a current Ollama: older, partial or broken."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from support.fake_ollama import (
    BREAKS_OFF,
    HANGS,
    NOT_FOUND,
    Reply,
    answers,
    fake_ollama,
    show,
    tag,
)
from support.odd_log import alter

from herdbook.core import ManagerSettings, ModelManager, ModelState
from herdbook.core.log.location import MEMORY
from herdbook.events.facts import FactSource
from herdbook.presentation.wording import NOTHING, context_text, size_text

NAME = "llama3.1:8b"
SETTINGS = ManagerSettings(refresh_timeout_s=5)
IMPATIENT = ManagerSettings(refresh_timeout_s=0.5)


async def test_model_whose_details_hang_is_listed_within_the_bound(
    capsys: Any,
) -> None:
    def replies(path: str, _headers: object, body: dict[str, object]) -> Reply:
        if path == "/api/show" and body["model"] == NAME:
            return HANGS
        return server(path, {}, {})

    models = [tag(NAME), tag("mistral:7b", "b" * 64)]
    server = answers(tags=Reply({"models": models}))
    async with fake_ollama(replies) as url:
        began = time.monotonic()
        opened = ModelManager.open(MEMORY, ollama=url, settings=IMPATIENT)
        async with opened as manager:
            first_s = time.monotonic() - began
            statuses = {one.name: one for one in await manager.all_statuses()}
            began = time.monotonic()
            await manager.refresh()
            again_s = time.monotonic() - began

    assert first_s < 1.5
    assert again_s < 0.45
    assert {one.state for one in statuses.values()} == {ModelState.AVAILABLE}
    assert statuses["mistral:7b"].weights == "d" * 64
    assert statuses[NAME].weights is None
    assert statuses[NAME].digest == "a" * 64
    assert "no answer within 0." in "".join(capsys.readouterr())


async def test_models_of_a_server_without_ps_are_listed_and_loaded_is_unknown() -> None:
    replies = answers(NAME, ps=NOT_FOUND)
    async with (
        fake_ollama(replies) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        (status,) = await manager.all_statuses()
        node = await manager.node_status()
        found = {one.check: one for one in await manager.doctor()}

        assert node.reached
        assert status.state is ModelState.AVAILABLE
        assert status.stale_since is not None
        assert manager.server_notice == (
            "Ollama 0.33.0 does not report loaded models: whether a model is loaded "
            "is unknown"
        )
        assert "loaded models" in found["version"].what
        assert found["runners"].what == "not reported by the server"


FORBIDDEN = Reply("<html>Forbidden</html>", 403)
TORN = (HANGS, BREAKS_OFF, FORBIDDEN, Reply({"error": "no"}, 503), Reply("", 429))


@pytest.mark.parametrize("reply", TORN)
async def test_models_are_listed_if_another_endpoint_fails(reply: Reply) -> None:
    replies = answers(NAME, ps=reply, version=reply)
    settings = ManagerSettings(refresh_timeout_s=1 if reply == HANGS else 5)
    async with (
        fake_ollama(replies) as url,
        ModelManager.open(MEMORY, ollama=url, settings=settings) as manager,
    ):
        (status,) = await manager.all_statuses()

        assert (status.name, status.state) == (NAME, ModelState.AVAILABLE)
        assert (await manager.node_status()).reached
        assert "whether a model is loaded is unknown" in manager.server_notice


@pytest.mark.parametrize("reply", TORN)
async def test_loaded_model_is_known_if_no_details_are(
    reply: Reply, capsys: Any
) -> None:
    settings = ManagerSettings(refresh_timeout_s=1 if reply == HANGS else 5)
    names = [f"m{number}:1b" for number in range(8)]
    runner = {**tag(NAME), "size_vram": 0, "expires_at": "2030-01-01T00:00:00Z"}
    others = [tag(name, f"{number}" * 64) for number, name in enumerate(names)]
    tags = Reply({"models": [tag(NAME), *others]})
    replies = answers(tags=tags, ps=Reply({"models": [runner]}), show=reply)
    async with (
        fake_ollama(replies) as url,
        ModelManager.open(MEMORY, ollama=url, settings=settings) as manager,
    ):
        statuses = {one.name: one for one in await manager.all_statuses()}

        assert statuses.keys() == {NAME, *names}
        assert statuses[NAME].state is ModelState.LOADED
        assert statuses[NAME].stale_since is None
        assert statuses["m1:1b"].state is ModelState.AVAILABLE
        assert "".join(capsys.readouterr()).count("show_failed") < len(names)


async def test_server_without_a_version_or_details_is_reached() -> None:
    replies = answers(NAME, version=NOT_FOUND, show=NOT_FOUND)
    async with (
        fake_ollama(replies) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        (status,) = await manager.all_statuses()

        assert status.state is ModelState.AVAILABLE
        assert (await manager.node_status()).server_version == "unknown"
        assert manager.server_notice == ""


async def test_failed_refresh_shows_its_reason() -> None:
    replies = answers(tags=Reply("<html>Sign in</html>", 401))
    async with (
        fake_ollama(replies) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        assert "requires authentication (HTTP 401)" in manager.server_notice


async def test_default_context_is_in_the_models_own_parameters() -> None:
    text = 'num_ctx    32768\ntemperature    0.3\nstop    "a"\nstop    "b"'
    shown = show(parameters=text)
    async with (
        fake_ollama(answers(NAME, shown=shown)) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        (status,) = await manager.all_statuses()

        assert status.context_trained == 131072
        assert status.context_default == 32768
        assert status.temperature == 0.3
        assert status.parameters == {
            "num_ctx": 32768,
            "stop": ["a", "b"],
            "temperature": 0.3,
        }


@pytest.mark.parametrize("odd", [None, 7, {"a": 1}, ["x"]])
async def test_odd_field_of_the_details_affects_only_itself(odd: object) -> None:
    shown = show(parameters=odd, template=odd, capabilities=odd, projector_info=odd)
    async with (
        fake_ollama(answers(NAME, shown=shown)) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        (status,) = await manager.all_statuses()

        assert (status.context_trained, status.weights) == (131072, "d" * 64)
        assert status.parameters == {}


async def test_parameters_that_json_cannot_hold_are_left_out() -> None:
    long, many = "x" * 1001, "\n".join(f"p{number}    1" for number in range(90))
    text = f'a    inf\nb    nan\nc    {2**60}\nd    "{long}"\nok    1\n{many}'
    text += f"\na1    {'9' * 400}\na2    {'9' * 5000}"
    async with (
        fake_ollama(answers(NAME, shown=show(parameters=text))) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        (status,) = await manager.all_statuses()

        assert status.parameters["ok"] == 1
        assert len(status.parameters) == 64
        assert not status.parameters.keys() & {*"abcd", "a1", "a2"}
        assert (await manager.verify()).findings == ()


async def test_model_that_an_older_version_detected_is_detected_again(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    shown = show(parameters="num_ctx    32768")
    async with fake_ollama(answers(NAME, shown=shown)) as url:

        async def recorded() -> list[int]:
            opened = ModelManager.open(log, ollama=url, settings=SETTINGS)
            async with opened as manager:
                (status,) = await manager.all_statuses()
                assert status.context_default == 32768
                return [
                    event.schema
                    for event in (await manager.read_log()).events
                    if event.type == "CapabilitiesDetected"
                ]

        await recorded()
        alter(  # what an older version would have written
            log,
            "UPDATE events SET schema = 1, data = json_remove(data, '$.parameters') "
            "WHERE type = 'CapabilitiesDetected'",
        )

        assert await recorded() == [1, 2]
        assert await recorded() == [1, 2]


@pytest.mark.parametrize(
    ("shown", "has", "lacks"),
    [
        ({"model_info": {"bert.pooling_type": 2}}, "embedding", "completion"),
        (
            {"model_info": {"general.architecture": "nomic-bert"}},
            "embedding",
            "completion",
        ),
        ({"projector_info": {"clip.vision": True}}, "vision", "embedding"),
        (
            {"model_info": {"general.architecture": "jina-bert-v2"}},
            "embedding",
            "completion",
        ),
        ({"details": {"family": "nomic-bert-moe"}}, "embedding", "completion"),
        ({"details": {"families": ["llama", "clip"]}}, "vision", "embedding"),
        ({"model_info": {"general.architecture": "mllama"}}, "vision", "embedding"),
        ({"template": "{{ if .Tools }}{{ end }}"}, "tools", "insert"),
        ({"template": "<PRE>{{ .Suffix }}"}, "insert", "tools"),
    ],
)
async def test_capabilities_of_an_older_server_come_from_other_fields(
    shown: dict[str, object], has: str, lacks: str
) -> None:
    async with (
        fake_ollama(answers("bge-m3:latest", shown=show(**shown))) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        (status,) = await manager.all_statuses()

        assert status.capabilities[has].value
        assert status.capabilities[has].source is FactSource.SHOW
        assert not status.capabilities[lacks].value


@pytest.mark.parametrize(
    ("prefix", "key", "header"),
    [
        ("ann:s3cret@", "", "Basic YW5uOnMzY3JldA=="),
        ("", "s3cret", "Bearer s3cret"),
    ],
)
async def test_credentials_are_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    prefix: str,
    key: str,
    header: str,
) -> None:
    def replies(path: str, headers: dict[str, str], body: dict[str, object]) -> Reply:
        sent = headers.get("authorization")
        # Proxies under test show what they refuse.
        refused = Reply({"error": f"not {sent}, ann:wr0ng"}, 401)
        return server(path, headers, body) if sent == header else refused

    server = answers(NAME)
    monkeypatch.setenv("OLLAMA_API_KEY", key)
    log = tmp_path / "herd.db"
    async with fake_ollama(replies) as url:
        address = url.replace("://", f"://{prefix}")
        async with ModelManager.open(log, ollama=address) as manager:
            assert (await manager.node_status()).url == url
            shown = str(await manager.doctor())
        monkeypatch.delenv("OLLAMA_API_KEY")
        wrong = url.replace("://", "://ann:wr0ng@")
        async with ModelManager.open(log, ollama=wrong) as manager:
            notice = manager.server_notice
            shown += str(await manager.doctor())

    assert "requires authentication (HTTP 401)" in notice
    assert "OLLAMA_API_KEY" in notice
    shown += notice + "".join(capsys.readouterr())
    written = log.read_bytes()
    for secret in ("s3cret", "wr0ng", "YW5uOndyMG5n", header):
        assert secret not in shown
        assert secret.encode() not in written


@pytest.mark.parametrize(
    ("reply", "state", "remedy"),
    [
        (Reply("", 403), "was refused", "foreign Host and Origin headers"),
        (Reply("<html>no", 403), "was refused", "OLLAMA_API_KEY"),
        (Reply({"error": "ollama cloud is disabled"}, 403), "cloud", "ollama signin"),
        (
            Reply("", 301, {"location": "https://ann:pw@ollama.example/api/tags?a=1"}),
            "redirects to https://ollama.example",
            "If that is your Ollama server, use its address",
        ),
        (Reply("", 302, {"location": "/login"}), "/login", "use its address"),
        (Reply("", 304), "cannot be read: HTTP 304", "not of a proxy"),
    ],
)
async def test_remedy_depends_on_the_answer(
    reply: Reply, state: str, remedy: str
) -> None:
    async with (
        fake_ollama(answers(tags=reply)) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        assert state in manager.server_notice
        assert remedy in manager.server_notice
        assert "pw" not in manager.server_notice


C, D = "c" * 64, "d" * 64


@pytest.mark.parametrize("digests", [(C, D), (D, C)])
async def test_name_listed_with_two_digests_is_one_model(
    digests: tuple[str, str],
) -> None:
    lists = [[tag(NAME, digest) for digest in order] for order in (digests, (D, C))]
    loaded = {**tag(NAME, D), "size_vram": 0, "expires_at": "2030-01-01T00:00:00Z"}
    runners = [[loaded], []]

    def replies(path: str, headers: dict[str, str], body: dict[str, object]) -> Reply:
        tags, ps = Reply({"models": lists[0]}), Reply({"models": runners[0]})
        return answers(tags=tags, ps=ps)(path, headers, body)

    async with (
        fake_ollama(replies) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        (status,) = await manager.all_statuses()
        found = {one.check: one for one in await manager.doctor()}
        assert (status.digest, status.state) == (D, ModelState.LOADED)
        assert f"listed again, with another digest: {D[:12]}" in found["entries"].what
        assert found["runners"].what == "1, none orphaned"

        lists.reverse()
        runners.reverse()
        await manager.refresh()
        (status,) = await manager.all_statuses()
        assert (status.digest, status.state) == (D, ModelState.AVAILABLE)


async def test_model_without_size_and_details_is_shown_as_unknown() -> None:
    unknown = {"name": "aaa:1b", "digest": C}
    tags = Reply({"models": [unknown, tag(NAME)]})
    replies = answers(tags=tags, shown=show(capabilities=["completion"]))

    def answer(path: str, headers: dict[str, str], body: dict[str, object]) -> Reply:
        unreadable = path == "/api/show" and body["model"] == "aaa:1b"
        return Reply({}) if unreadable else replies(path, headers, body)

    async with (
        fake_ollama(answer) as url,
        ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager,
    ):
        status = await manager.get_status("aaa:1b")
        assert status is not None
        assert size_text(status) == NOTHING
        assert context_text(status, manager.registry) == NOTHING
        sentences = [entry.sentence for entry in await manager.history("aaa:1b")]
        assert "found: digest cccccccccccc" in sentences
        assert "capabilities: completion, json" in sentences
        chosen = (await manager.explain("general")).chosen
        assert [one.name for one in chosen] == [NAME, "aaa:1b"]
        assert "details unknown, may not fit" in chosen[-1].reasons
