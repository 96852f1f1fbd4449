"""Servers that answer otherwise than a current Ollama: older, partial or broken."""

from __future__ import annotations

import time
from typing import Any

from support.fake_ollama import HANGS, Reply, answers, fake_ollama, tag

from herdbook.core import ManagerSettings, ModelManager, ModelState
from herdbook.core.storage import MEMORY

NAME = "llama3.1:8b"
SETTINGS = ManagerSettings(refresh_timeout_s=0.5)


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
        async with ModelManager.open(MEMORY, ollama=url, settings=SETTINGS) as manager:
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
    assert "no answer within 0.5 s" in capsys.readouterr().out
