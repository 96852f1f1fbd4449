"""One action for several models, and the dialog that frees disk space."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runner import SandboxThread
from support.service_program import ServiceThread, run_in_thread
from support.waiting import wait_until
from support.web.html_client import (
    HOSTILE,
    MODEL,
    HtmlClient,
    event_types,
    open_client,
)
from support.web.http_fixture import OPERATOR, TOKENS

from herdbook.projections.sentences import bytes_text


def present(herdbook: ServiceThread) -> dict[str, int]:
    return {each["name"]: each["size_bytes"] for each in herdbook.get("/v1/models")}


def test_confirmation_lists_every_model_and_its_size(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    sizes = present(herdbook)
    one, other = sorted(sizes)[:2]

    asked = browser.page(f"/bulk?do=delete&model={one}&model={other}&model=no:1b")

    assert "Delete 2 models?" in asked.text
    for name in (one, other):
        assert f"{name} frees {bytes_text(sizes[name])}" in asked.text
    assert "no:1b not on the server" in asked.text
    whole = bytes_text(sizes[one] + sizes[other])
    assert f"This frees {whole} of disk space." in asked.text
    assert present(herdbook) == sizes


def test_confirmation_leaves_out_what_cannot_be_changed(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    herdbook.operate("load", MODEL)
    idle = min(set(present(herdbook)) - {MODEL})

    one = browser.http.get(f"/bulk?do=unload&model={MODEL}&model={idle}").text
    none = browser.http.get(f"/bulk?do=unload&model={idle}").text

    assert "Unload 1 model?" in one
    assert f'name="models" value="{MODEL}"' in one
    assert "None of the selected models can be unloaded." in none
    assert 'name="models"' not in none


def test_failing_model_does_not_stop_the_others(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    names = sorted(present(herdbook))
    one, other = names[:2]

    answer = browser.send("/bulk", 200, do="delete", models=f"{one} no:1b {other}")

    assert present(herdbook).keys() == set(names[2:])
    assert "2 models deleted, 1 failed. This frees" in answer.text
    assert f'href="/models/{one}"' in answer.text
    assert event_types(herdbook, other)[-1] == "ModelDeleted"
    newest = herdbook.get("/v1/log/head")["position"]
    assert f'href="/log/{newest}"' in answer.text


def test_models_can_be_unloaded_and_pulled_again(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    herdbook.operate("load", MODEL)

    asked = browser.page(f"/bulk?do=unload&model={MODEL}")
    unloaded = browser.send("/bulk", 200, do="unload", models=MODEL)
    browser.page(f"/bulk?do=pull&model={MODEL}&model=qwen3:0.6b")
    pulled = browser.send("/bulk", 200, do="pull", models=f"{MODEL} qwen3:0.6b")

    assert "of memory" in asked.text
    assert "1 model unloaded." in unloaded.text
    assert event_types(herdbook)[-1] == "ModelUnloaded" or "Update" in str(
        event_types(herdbook)[-1]
    )
    assert "2 pulls started." in pulled.text
    wait_until(lambda: "PullCompleted" in event_types(herdbook, "qwen3:0.6b"))
    wait_until(lambda: "UpdateUnchanged" in event_types(herdbook))


@pytest.mark.parametrize(
    "query",
    [
        "do=delete",
        "do=explode&model=a:b",
        "do=delete&model=a%20b",
        "do=delete&" + "&".join(f"model=m{n}:1b" for n in range(101)),
    ],
)
def test_invalid_selection_is_refused(browser: HtmlClient, query: str) -> None:
    browser.page(f"/bulk?{query}", 400)


def test_form_without_proof_changes_nothing(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    before = present(herdbook)

    answer = browser.http.post("/bulk", data={"do": "delete", "models": MODEL})

    assert answer.status_code == 403
    assert present(herdbook) == before


def test_operator_cannot_delete_several_models(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    with (
        run_in_thread(tmp_path / "herd.db", ollama.address, tokens=TOKENS) as running,
        open_client(running.address, OPERATOR) as browser,
    ):
        browser.page(f"/bulk?do=delete&model={MODEL}", 403)
        browser.page("/free?size=1GB", 403)
        browser.send("/bulk", 403, do="delete", models=MODEL)
        browser.page(f"/bulk?do=unload&model={MODEL}")


def test_free_space_is_proposed_with_alternatives(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    before = present(herdbook)
    loaded = min(before)
    herdbook.operate("load", loaded)

    page = browser.page("/free?size=1GB")
    too_much = browser.page("/free?size=900GB")

    assert "Free 1.0 GB of disk space" in page.text
    assert "alternative" in page.text
    assert "Nothing is deleted yet." in page.text
    assert f"{loaded} loaded" in page.text
    assert "of 900.0 GB can be freed." in too_much.text
    assert present(herdbook).keys() == before.keys()


def test_models_of_the_desired_set_are_kept(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    file = tmp_path / "herd.toml"
    file.write_text('[models."gemma3:4b"]\n[models."smollm2"]\n')
    log = tmp_path / "herd.db"
    with (
        run_in_thread(log, ollama.address, desired=file) as running,
        open_client(running.address) as browser,
    ):
        first = browser.page("/free?size=3GB")
        asked = browser.page("/bulk?do=delete&model=gemma3:4b")
        alone = browser.page("/models/gemma3:4b/delete")
        refused = running.http.post("/v1/free", json={"models": ["gemma3:4b"]})
        file.write_text("[models]\n")
        second = browser.page("/free?size=3GB")
        file.write_text("[models")
        invalid = browser.page("/free?size=3GB", 400)

    assert "gemma3:4b in the desired set" in first.text
    assert "--desired" not in first.text
    assert "in the desired set" in asked.text
    assert "It is in the desired set of this service." in alone.text
    assert refused.json()["models"][0]["error"]["code"] == "model_kept"
    assert "in the desired set" not in second.text
    assert str(file) in invalid.text


@pytest.mark.parametrize("size", ["", "much", "10", HOSTILE])
def test_invalid_size_is_refused(browser: HtmlClient, size: str) -> None:
    answer = browser.http.get("/free", params={"size": size})

    assert answer.status_code == 400
    assert "<script>alert" not in answer.text
