from __future__ import annotations

import json

import httpx
import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli.commands.models.ps import _processor
from herdbook.core import Runner


def copy(server: SandboxThread, source: str, destination: str) -> None:
    httpx.post(
        f"{server.address}/api/copy",
        json={"source": source, "destination": destination},
        trust_env=False,
    ).raise_for_status()


def test_ps_lists_the_loaded_models_with_a_total(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("load", "llama3.2:3b", "--keep-alive", "-1")
    herdbook("use", "llama3.2:3b")

    lines = herdbook("ps").out.splitlines()

    assert lines[0].split() == [
        *("MODEL", "MEMORY", "PROCESSOR", "CONTEXT", "EXPIRES", "LOADED"),
        *("LAST", "USED"),
    ]
    assert lines[1].startswith("llama3.2:3b   ")
    assert "100% GPU" in lines[1]
    assert "by cli:ann" in lines[1]
    assert "1 model loaded, " in lines[-1]


def test_ps_in_json_has_the_split_and_who_loaded(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("load", "llama3.2:3b")
    herdbook("load", "smollm2:135m", "--num-ctx", "2048")

    answer = herdbook("ps", "--json").json

    assert [each["name"] for each in answer["models"]] == [
        "llama3.2:3b",
        "smollm2:135m",
    ]
    first, second = answer["models"]
    assert first["size_bytes"] == first["gpu_bytes"] + first["cpu_bytes"]
    assert answer["size_bytes"] == first["size_bytes"] + second["size_bytes"]
    assert (second["context"], second["loaded_by"]) == (2048, "cli:ann")
    assert second["observed"] is False
    assert answer["stale_since"] is None


def test_ps_and_show_have_the_reload_of_a_loaded_model(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    herdbook("load", "llama3.2:3b")
    request = {"model": "llama3.2:3b", "options": {"num_ctx": 2048}, "stream": False}
    httpx.post(
        f"{server.address}/api/generate", json=request, trust_env=False, timeout=20
    ).raise_for_status()

    (shown,) = herdbook("ps", "--json").json["models"]

    assert (shown["context"], shown["observed"]) == (2048, True)
    assert shown["loaded_by"] != "cli:ann"
    assert "(reloaded: 2k context" in herdbook("show", "llama3.2:3b").out


def test_ps_shows_models_that_share_a_runner_once(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    copy(server, "llama3.2:3b", "copy:1b")
    herdbook("load", "llama3.2:3b")

    shown = herdbook("ps", "--json").json["models"]

    assert [(each["name"], each["also"]) for each in shown] == [
        ("llama3.2:3b", ["copy:1b"])
    ]
    assert "also copy:1b (same weights)" in herdbook("ps").out


def test_ps_without_loaded_models_says_so(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("ps")

    assert (answer.code, answer.out) == (0, "local · no models loaded\n")


@pytest.mark.parametrize(
    ("size", "vram", "shown"),
    [
        (100, 52, "48% CPU, 52% GPU"),
        (100, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (4_445_961, 167_772, "96% CPU, 4% GPU"),  # as `ollama ps` of Ollama 0.33
        (1_000, 5, "99% CPU, 1% GPU"),
        (10_000, 9_999, "1% CPU, 99% GPU"),
    ],
)
def test_ps_splits_memory_in_percent(size: int, vram: int, shown: str) -> None:
    runner = Runner(name="a:1b", digest="0", size_bytes=size, size_vram_bytes=vram)

    assert _processor(runner) == shown


@pytest.mark.parametrize(
    ("status", "body"), [(404, "404 page not found"), (200, "<html>chat</html>")]
)
def test_models_loaded_on_a_server_that_does_not_report_them_are_unknown(
    herdbook: Herdbook, server: SandboxThread, status: int, body: str
) -> None:
    server.apply(answer={"path": "/api/ps", "status": status, "body": body, "times": 0})

    assert "loaded models: unknown" in herdbook("ps").out
    assert herdbook("ps", "--json").json["reported"] is False
    assert "loaded models not reported" in herdbook("refresh").out
    assert "whether a model is loaded is unknown" in herdbook("ls").out
    assert herdbook("ls").code == 0


def test_unknown_memory_is_not_shown_as_zero(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    listed = httpx.get(f"{server.address}/api/tags", trust_env=False).json()
    model = listed["models"][0]
    runner = {"name": model["name"], "digest": model["digest"], "size": 0}
    body = json.dumps({"models": [runner]})
    server.apply(answer={"path": "/api/ps", "status": 200, "body": body, "times": 0})

    assert "1 model loaded, memory not known" in herdbook("ps").out
    assert "memory not known" in herdbook("ls").out
