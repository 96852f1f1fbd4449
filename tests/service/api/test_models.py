"""The API about models, and who may overwrite what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest
from ollama import Client
from support.cli_runner import SandboxThread
from support.service_program import RunningService

from herdbook.presentation import shapes

HERE = "gemma3:4b"
NESTED = "hf.co/ann/Tiny-GGUF:Q4"


def names(answer: Any) -> list[str]:
    """Return the names of models."""
    return [model["name"] for model in answer]


def configure(
    herdbook: RunningService, name: str, settings: dict[str, Any], **headers: str
) -> httpx.Response:
    """Set all settings of a model."""
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    path = f"/v1/models/{name}/configuration"
    return herdbook.http.put(path, json={"settings": settings}, headers=sent)


def seen_alike(herdbook: RunningService, official: Client) -> bool:
    """Return whether the official client sees the same models as the API."""
    theirs = {(one.model, one.digest, one.size) for one in official.list().models}
    ours = {
        (one["name"], one["digest"], one["size_bytes"])
        for one in herdbook.get("/v1/models")
    }
    return ours == theirs


def test_models_equal_those_of_the_official_client(
    herdbook: RunningService, ollama: SandboxThread
) -> None:
    with Client(host=ollama.address) as official:
        assert seen_alike(herdbook, official)
        herdbook.operate("pull", "qwen3:0.6b")
        assert seen_alike(herdbook, official)
        official.delete(HERE)
        herdbook.operate("refresh")
        assert seen_alike(herdbook, official)
        assert len(official.list().models) > 1


def test_a_model_has_the_documented_shape(herdbook: RunningService) -> None:
    result = herdbook.http.get("/v1/models").content

    models = msgspec.json.decode(result, type=list[shapes.Model])
    assert {model.node for model in models} == {"local"}
    assert set(msgspec.json.decode(result)[0]) == set(shapes.Model.__struct_fields__)


def test_list_can_be_filtered(herdbook: RunningService) -> None:
    herdbook.operate("load", HERE)
    every = names(herdbook.get("/v1/models"))

    assert names(herdbook.get("/v1/models?state=loaded")) == [HERE]
    assert HERE not in names(herdbook.get("/v1/models?state=available&state=error"))
    assert herdbook.http.get("/v1/models?node=elsewhere").status_code == 404
    assert names(herdbook.get("/v1/models?node=local")) == every
    assert HERE in names(herdbook.get("/v1/models?capability=vision"))
    assert names(herdbook.get(f"/v1/models?text={HERE[:4].upper()}"))[0] == HERE
    large = herdbook.get("/v1/models?larger=3GB&smaller=4gb&family=gemma")
    assert names(large) == ["gemma3:4b"]
    unknown = herdbook.http.get("/v1/models?capability=visoin")
    assert unknown.status_code == 400
    assert "Did you mean 'vision'?" in unknown.json()["remedy"]
    assert herdbook.http.get("/v1/models?larger=much").status_code == 400
    both = "/v1/models?capability=vision&capability=embedding"
    assert names(herdbook.get(both)) == []
    coding = names(herdbook.get("/v1/models?role=coding"))
    chosen = herdbook.get("/v1/roles/coding")["chosen"]
    assert coding == names(chosen) != []


@pytest.mark.parametrize(
    ("sort", "field"),
    [("name", "name"), ("-name", "name"), ("size", "size_bytes"), ("-size", None)],
)
def test_list_can_be_sorted(
    herdbook: RunningService, sort: str, field: str | None
) -> None:
    models = herdbook.get(f"/v1/models?sort={sort}")

    values = [model[field or "size_bytes"] for model in models]
    assert values == sorted(values, reverse=sort.startswith("-"))


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("context", lambda model: model["context"]["trained"]),
        ("last_used", lambda model: model["last_used_at"]),
        ("family", lambda model: model["family"]),
        ("node", lambda model: model["node"]),
    ],
)
def test_unknown_values_are_last_in_both_orders(
    herdbook: RunningService, sort: str, value: Callable[[Any], Any]
) -> None:
    herdbook.http.post("/v1/models/gemma3:4b/use", json={})

    for order in (sort, f"-{sort}"):
        found = [value(model) for model in herdbook.get(f"/v1/models?sort={order}")]
        known = [each for each in found if each]
        assert known == sorted(known, reverse=order.startswith("-"))
        assert not any(found[len(known) :])


def test_deleted_models_are_listed_on_request(
    herdbook: RunningService,
) -> None:
    removed = herdbook.http.delete(f"/v1/models/{HERE}")

    assert removed.status_code == 200
    assert removed.json() == {
        "name": HERE,
        "freed_bytes": 3338792818,
        "shared_with": [],
    }
    assert HERE not in names(herdbook.get("/v1/models"))
    assert HERE in names(herdbook.get("/v1/models?gone=true"))
    assert names(herdbook.get("/v1/models?state=not_present")) == [HERE]
    assert herdbook.types(HERE)[-1] == "ModelDeleted"
    assert herdbook.http.delete(f"/v1/models/{HERE}").status_code == 404


def test_models_as_of_a_position(herdbook: RunningService) -> None:
    before = herdbook.get("/v1/log/head")["position"]
    herdbook.http.delete(f"/v1/models/{HERE}")

    then = herdbook.get(f"/v1/models?as_of=%23{before}")
    assert HERE in names(then)
    assert herdbook.get(f"/v1/models/{HERE}?as_of={before}")["state"] == "available"
    assert herdbook.get(f"/v1/models/{HERE}")["state"] == "not_present"


@pytest.mark.parametrize("written", [NESTED, NESTED.replace("/", "%2F")])
def test_names_with_slashes_are_accepted(
    herdbook: RunningService, written: str
) -> None:
    configured = configure(herdbook, written, {"num_ctx": 1024}, if_match="*")

    assert configured.json()["name"] == NESTED
    assert herdbook.get(f"/v1/models/{written}?node=local")["name"] == NESTED
    assert herdbook.types(written) == ["ConfigurationChanged"]
    assert herdbook.get(f"/v1/models/{written}/configuration")["settings"] == {
        "num_ctx": 1024
    }


def test_name_that_ends_in_a_known_word(herdbook: RunningService) -> None:
    for written in ("ann%2Fhistory", "ann/history:latest"):
        configured = configure(herdbook, written, {"num_ctx": 1024}, if_match="*")

        assert configured.json()["name"] == "ann/history:latest"
    assert herdbook.http.get("/v1/models/ann/history").json()["subject"] == "ann:latest"


def test_configuration_is_changed_at_the_version_that_was_read(
    herdbook: RunningService,
) -> None:
    read = herdbook.http.get(f"/v1/models/{HERE}/configuration")
    tag = read.headers["etag"]

    first = configure(herdbook, HERE, {"num_ctx": 4096, "pinned": True}, if_match=tag)
    second = configure(herdbook, HERE, {"temperature": 0.1}, if_match=tag)

    assert tag == f'"{read.json()["version"]}"'
    assert first.status_code == 200
    assert first.json()["settings"] == {"num_ctx": 4096, "pinned": True}
    assert second.status_code == 412
    assert second.json()["code"] == "precondition_failed"
    after = herdbook.get(f"/v1/models/{HERE}/configuration")
    assert after["settings"] == {"num_ctx": 4096, "pinned": True}

    third = configure(
        herdbook, HERE, {"temperature": 0.1}, if_match=first.headers["etag"]
    )
    assert third.json()["settings"] == {"temperature": 0.1}


def test_configuration_needs_a_version(herdbook: RunningService) -> None:
    missing = configure(herdbook, HERE, {"num_ctx": 4096})
    nonsense = configure(herdbook, HERE, {"num_ctx": 4096}, if_match='"x"')
    wrong = configure(herdbook, HERE, {"num_ctx": "many"}, if_match="*")

    assert (missing.status_code, missing.json()["code"]) == (
        *(428,),
        "precondition_required",
    )
    assert nonsense.status_code == 400
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_configuration")
    assert herdbook.get(f"/v1/models/{HERE}/configuration")["settings"] == {}


def test_use_is_recorded_with_the_caller_as_actor(herdbook: RunningService) -> None:
    answer = herdbook.http.post(f"/v1/models/{HERE}/uses", json={"purpose": "a test"})

    result = answer.json()
    assert answer.status_code == 201
    assert (result["uses"], result["last_used_by"]) == (1, "api:local")
    last = herdbook.get(f"/v1/models/{HERE}/history?type=ModelUsed")[-1]
    assert last["sentence"] == "used: a test"
    assert herdbook.http.post("/v1/models/none:1b/uses").status_code == 404


def test_history_filters_and_limits(herdbook: RunningService) -> None:
    herdbook.operate("load", HERE)
    herdbook.operate("unload", HERE)
    path = f"/v1/models/{HERE}/history"

    assert [e["type"] for e in herdbook.get(f"{path}?limit=1")] == ["ModelUnloaded"]
    loads = herdbook.get(f"{path}?type=LoadStarted&type=ModelLoaded")
    assert [e["type"] for e in loads] == ["LoadStarted", "ModelLoaded"]
    assert {e["actor"] for e in herdbook.get(f"{path}?actor=api:")} == {"api:local"}
    assert herdbook.get(f"{path}?since=2100-01-01T00:00:00Z") == []
    assert herdbook.http.get(f"{path}?since=soon").status_code == 400
    assert herdbook.http.get(f"{path}?type=Nonsense").status_code == 400


def test_why_statistics_and_costs(herdbook: RunningService) -> None:
    herdbook.operate("load", HERE)

    why = herdbook.get(f"/v1/models/{HERE}/why")
    assert why["model"]["name"] == HERE
    assert why["ancestors"][-1]["entry"]["type"] == "ModelLoaded"
    assert herdbook.get(f"/v1/models/{HERE}/statistics")["loads"] == 1
    assert herdbook.get(f"/v1/models/{HERE}/cost?of=load")["loaded"] is True
    assert herdbook.get(f"/v1/models/{HERE}/cost?of=delete")["shared_with"] == []
    freed = herdbook.get(f"/v1/models/{HERE}/cost?of=unload")["frees"]
    assert freed["size_bytes"] > 3_000_000_000
    assert freed["source"] == "ps"
    pull = herdbook.get("/v1/models/qwen3-coder:30b/cost?of=pull")
    assert (pull["update"], pull["fetch"]["source"]) == (False, "catalogue")


def test_unknown_model_is_not_found(herdbook: RunningService) -> None:
    for path in ("", "/history", "/why", "/statistics"):
        answer = herdbook.http.get(f"/v1/models/never-heard-of:1b{path}")

        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert herdbook.http.get("/v1/models/a%20b").json()["code"] == "invalid_name"


def test_unchanged_answers_are_not_sent_again(herdbook: RunningService) -> None:
    for path in ("/v1/models", "/v1/status"):
        first = herdbook.http.get(path)
        tag = {"if-none-match": first.headers["etag"]}

        again = herdbook.http.get(path, headers=tag)
        herdbook.http.post(f"/v1/models/{HERE}/uses")
        moved = herdbook.http.get(path, headers=tag)

        assert (again.status_code, again.content) == (304, b"")
        assert moved.status_code == 200
        assert moved.content != first.content


def test_change_without_a_version_ignores_newer_events(
    herdbook: RunningService,
) -> None:
    done = threading.Event()

    def use() -> None:
        with httpx.Client(base_url=herdbook.address, trust_env=False) as other:
            while not done.is_set():
                assert other.post(f"/v1/models/{HERE}/uses").status_code == 201

    with ThreadPoolExecutor(3) as others:
        using = [others.submit(use) for _ in range(3)]
        try:
            answers = [
                configure(herdbook, HERE, {"num_ctx": 2048 + number}, if_match="*")
                for number in range(20)
            ]
        finally:
            done.set()
        for one in using:
            one.result()

    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].json()["settings"] == {"num_ctx": 2067}


def test_ps_lists_loaded_models_with_memory_and_who_loaded_them(
    herdbook: RunningService,
) -> None:
    assert herdbook.get("/v1/ps")["models"] == []
    herdbook.operate("load", "gemma3:4b")

    loaded = herdbook.get("/v1/ps")

    (model,) = loaded["models"]
    assert model["name"] == "gemma3:4b"
    assert model["loaded_by"] == "api:local"
    assert model["size_bytes"] == model["gpu_bytes"] + model["cpu_bytes"]
    assert model["context"] > 0
    assert model["expires_at"] > model["loaded_at"]
    assert loaded["size_bytes"] == model["size_bytes"]


@pytest.mark.parametrize(
    ("method", "path", "body", "hint"),
    [
        ("GET", "/v1/models/gemma3:4c", None, "Did you mean gemma3:4b?"),
        ("DELETE", "/v1/models/gema3:4b", None, "Did you mean gemma3:4b?"),
        ("POST", "/v1/models/gema3:4b/uses", {}, "Did you mean gemma3:4b?"),
        (
            "POST",
            "/v1/operations",
            {"kind": "load", "model": "gema3:4b"},
            "Did you mean gemma3:4b?",
        ),
        ("GET", "/v1/roles/codign", None, "Did you mean 'coding'?"),
        ("GET", "/v1/models?role=codign", None, "Did you mean 'coding'?"),
        ("GET", "/v1/events?type=PullFaild", None, "Did you mean 'PullFailed'?"),
        (
            "PUT",
            "/v1/models/gemma3:4b/configuration",
            {"settings": {"num_ctz": 4096}},
            "Did you mean 'num_ctx'?",
        ),
    ],
)
def test_misspelled_names_get_a_suggestion(
    herdbook: RunningService, method: str, path: str, body: object, hint: str
) -> None:
    headers = {"if-match": "*"} if method == "PUT" else {}

    answer = herdbook.http.request(method, path, json=body, headers=headers)

    assert answer.status_code in {400, 404, 422}, answer.text
    assert hint in answer.json()["remedy"]


def test_models_can_be_read_in_parts(herdbook: RunningService) -> None:
    every = herdbook.get("/v1/models?sort=name")

    parts = [herdbook.get(f"/v1/models?sort=name&limit=2&offset={n}") for n in (0, 2)]

    assert parts == [every[:2], every[2:4]]
    assert herdbook.get(f"/v1/models?offset={len(every)}") == []
    assert herdbook.http.get("/v1/models?limit=0").status_code == 400
