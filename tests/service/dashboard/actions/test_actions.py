"""Actions on the pages: confirmations, forms, and the recorded events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.cli_runner import SandboxThread
from support.service_program import ServiceThread, run_in_thread
from support.waiting import wait_until
from support.web.html_client import (
    HOSTILE,
    MODEL,
    SHOWN,
    HtmlClient,
    Page,
    event_types,
    open_client,
    settings_of,
    version_of,
)
from support.web.http_fixture import ADMIN, OPERATOR, READER, TOKENS


def test_pull_by_name_asks_for_confirmation(browser: HtmlClient) -> None:
    absent = browser.page("/pull?model=qwen3:0.6b")
    present = browser.page(f"/pull?model={MODEL}")

    assert "Pull qwen3:0.6b?" in absent.text
    assert "unknown" not in absent.text
    known = browser.page("/pull?model=llama3.1:8b")
    assert "download of up to 4.7 GB (catalogue)" in known.text
    assert f"Update {MODEL}?" in present.text


def test_form_starts_a_pull_that_is_recorded(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    answer = browser.send("/models/qwen3:0.6b/pull")

    location = answer.headers["location"]
    assert location.startswith("/models/qwen3:0.6b?done=")
    assert 'id="toast"' in browser.http.get(location).text
    wait_until(lambda: "PullCompleted" in event_types(herdbook, "qwen3:0.6b"))
    started = herdbook.get("/v1/models/qwen3:0.6b/history?limit=100")[0]
    assert (started["type"], started["actor"]) == ("PullStarted", "api:local")


def test_forms_load_use_and_unload_a_model(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    browser.send(f"/models/{MODEL}/load", num_ctx="2048", keep_alive="10m")
    wait_until(lambda: "ModelLoaded" in event_types(herdbook, MODEL))
    browser.send(f"/models/{MODEL}/use", purpose=HOSTILE)
    page = browser.page(f"/models/{MODEL}")
    asked = browser.page(f"/models/{MODEL}/unload")
    browser.send(f"/models/{MODEL}/unload")
    wait_until(lambda: "ModelUnloaded" in event_types(herdbook, MODEL))

    assert f"used: {SHOWN}" in page.text
    assert "2k context" in page.text
    assert "context in effect 2,048 tokens" in page.text
    assert "of memory." in asked.text


@pytest.mark.parametrize(
    ("form", "words"),
    [({"num_ctx": "viele"}, "num_ctx"), ({"keep_alive": "0"}, "keep_alive")],
)
def test_impossible_load_is_refused(
    browser: HtmlClient, form: dict[str, str], words: str
) -> None:
    answer = browser.http.post(
        f"/models/{MODEL}/load", data={"proof": browser.proof(), **form}
    )

    assert answer.status_code == 400
    assert words in Page(answer.text).text


def test_confirmations_name_the_other_affected_models(
    browser: HtmlClient, herdbook: ServiceThread, ollama: SandboxThread
) -> None:
    copied = {"source": MODEL, "destination": "twin:latest"}
    httpx.post(f"{ollama.address}/api/copy", json=copied).raise_for_status()
    browser.send("/node/refresh")
    browser.send(
        f"/models/{MODEL}/configuration", version=version_of(herdbook), num_ctx="2048"
    )
    load = browser.page(f"/models/{MODEL}/load")
    browser.send(f"/models/{MODEL}/load")
    wait_until(lambda: "ModelLoaded" in event_types(herdbook, "twin:latest"))

    assert "Settings: num_ctx 2048." in load.text
    unload = browser.page(f"/models/{MODEL}/unload")
    assert "twin:latest will also be unloaded (same weights)." in unload.text
    delete = browser.page(f"/models/{MODEL}/delete")
    assert "frees almost no space: same weights as twin:latest" in delete.text
    assert "same weights as" in browser.page("/").text
    assert "already loaded" in browser.page(f"/models/{MODEL}/load").text
    assert "/models/twin:latest" in browser.page("/node").links


def test_update_says_that_the_present_version_stays(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    asked = browser.page(f"/models/{MODEL}/update")
    browser.send(f"/models/{MODEL}/update")
    wait_until(lambda: "UpdateUnchanged" in event_types(herdbook))

    assert "Unchanged parts are not downloaded again." in asked.text


def test_delete_shows_the_freed_size_and_redirects_to_the_models(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    asked = browser.page(f"/models/{MODEL}/delete")
    answer = browser.send(f"/models/{MODEL}/delete")

    assert "This frees 2.0 GB." in asked.text
    assert answer.headers["location"].startswith("/?done=")
    assert event_types(herdbook, MODEL)[-1] == "ModelDeleted"
    assert MODEL not in browser.page("/").text
    assert MODEL in browser.page("/?gone=1").text


def test_cancel_ends_a_pull(tmp_path: Path, slow_ollama: SandboxThread) -> None:
    with (
        run_in_thread(tmp_path / "herd.db", slow_ollama.address) as running,
        open_client(running.address) as looking,
    ):
        looking.send("/models/qwen3:0.6b/pull")
        wait_until(lambda: " MB/s" in looking.page("/").text)
        manager = looking.page("/")
        asked = looking.page("/models/qwen3:0.6b/cancel")
        looking.send("/models/qwen3:0.6b/cancel")
        types = event_types(running, "qwen3:0.6b")

    assert "requested by api:local" in manager.text
    assert "Cancel the pull of qwen3:0.6b?" in asked.text
    assert "Pull the model again to resume" in asked.text
    assert types[-1] == "PullCancelled"


def test_cancel_without_a_running_operation_says_so(browser: HtmlClient) -> None:
    page = browser.http.get(f"/models/{MODEL}/cancel").text

    assert "has no running operation" in page
    assert 'class="button primary"' not in page


def test_failure_is_shown_once_with_its_remedy(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    browser.send("/models/no-such:1b/pull")
    wait_until(lambda: "PullFailed" in event_types(herdbook, "no-such:1b"))

    text = browser.page("/").text

    assert text.count("Check the name and the tag") == 1
    assert "Pull again" in text


def test_failure_of_a_model_can_be_dismissed(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    browser.send("/models/no-such:1b/pull")
    wait_until(lambda: "PullFailed" in event_types(herdbook, "no-such:1b"))
    asked = browser.page("/models/no-such:1b/delete")
    browser.send("/models/no-such:1b/delete")

    assert "Dismiss the failure of no-such:1b?" in asked.text
    assert "no-such:1b" not in browser.page("/").text


@pytest.mark.parametrize("way", ["GET", "POST"])
def test_unknown_action_has_no_page(browser: HtmlClient, way: str) -> None:
    answer = browser.http.request(way, f"/models/{MODEL}/explode")

    assert answer.status_code in (400, 404, 405)


def test_settings_are_changed_by_the_form(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    browser.send(
        f"/models/{MODEL}/configuration",
        version=version_of(herdbook),
        num_ctx="8192",
        pinned="true",
        notes=HOSTILE,
        options="top_k=40",
        **{"capability.tools": "false"},
        note="long files",
    )
    page = browser.page(f"/models/{MODEL}")

    assert settings_of(herdbook) == {
        "num_ctx": 8192,
        "pinned": True,
        "notes": HOSTILE,
        "options.top_k": 40,
        "capability.tools": False,
    }
    assert HOSTILE in page.text
    assert "long files" in page.text
    assert "api:local" in page.text


def test_changed_settings_of_a_loaded_model_apply_at_its_next_load(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    def change(**fields: str) -> str:
        browser.send(
            f"/models/{MODEL}/configuration", version=version_of(herdbook), **fields
        )
        return browser.page(f"/models/{MODEL}").text

    before = change(num_ctx="4096")
    herdbook.operate("load", MODEL)
    after = change(num_ctx="8192", notes="long files")

    assert "next load" not in before
    assert "num_ctx takes effect at the next load. Reload model" in after
    herdbook.operate("load", MODEL)
    assert "next load" not in browser.page(f"/models/{MODEL}").text
    assert "next load" in change(keep_alive="1h")
    herdbook.operate("load", MODEL)
    assert "next load" not in browser.page(f"/models/{MODEL}").text


def test_invalid_settings_keep_the_input(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    answer = browser.send(
        f"/models/{MODEL}/configuration",
        422,
        version=version_of(herdbook),
        num_ctx="viele",
        notes="my words",
        note="my reason",
    )

    assert "Nothing was saved." in Page(answer.text).text
    assert "my words" in answer.text
    assert 'value="viele"' in answer.text
    assert 'value="my reason"' in answer.text
    assert settings_of(herdbook) == {}


def test_conflicting_settings_are_shown_next_to_the_input(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    path, version = f"/models/{MODEL}/configuration", version_of(herdbook)
    browser.send(path, version=version, num_ctx="4096", notes="theirs", note="first")

    answer = browser.send(path, 409, version=version, temperature="0.7", note="mine")

    page = Page(answer.text)
    assert "The settings have changed. Nothing was saved." in page.text
    assert "num_ctx set to 4096 (was: not set)" in page.text
    assert 'name="num_ctx" inputmode="numeric" value="4096"' in answer.text
    assert 'name="temperature" inputmode="decimal" value="0.7"' in answer.text
    assert 'value="mine"' in answer.text
    assert settings_of(herdbook) == {"num_ctx": 4096, "notes": "theirs"}
    newer = re.search(r'name="version" value="(\d+)"', answer.text)
    assert newer
    browser.send(path, version=newer[1], num_ctx="4096", temperature="0.7")
    assert settings_of(herdbook) == {"num_ctx": 4096, "temperature": 0.7}


def test_concurrent_use_is_not_a_conflict(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    version = version_of(herdbook)
    browser.send(f"/models/{MODEL}/use")

    browser.send(f"/models/{MODEL}/configuration", version=version, num_ctx="4096")

    assert settings_of(herdbook) == {"num_ctx": 4096}


def test_form_with_no_version_of_the_log_changes_nothing(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    path, later = f"/models/{MODEL}/configuration", str(int(version_of(herdbook)) + 1)
    browser.send(path, 400, num_ctx="4096")
    refused = browser.send(path, 400, version=later, num_ctx="4096")

    assert "Reload the page" in refused.text

    assert settings_of(herdbook) == {}


@pytest.fixture
def guarded(tmp_path: Path, ollama: SandboxThread) -> Iterator[ServiceThread]:
    """Return a service that wants a token."""
    with run_in_thread(tmp_path / "herd.db", ollama.address, tokens=TOKENS) as running:
        yield running


def test_reader_sees_why_buttons_are_disabled(guarded: ServiceThread) -> None:
    with open_client(guarded.address, READER) as looking:
        page = looking.page(f"/models/{MODEL}")

        assert "This requires the operate role. ruth has the read role." in page.text
        assert f"/models/{MODEL}/load" not in page.links
        assert "cannot be loaded" in looking.page(f"/models/{MODEL}/load", 403).text
        assert looking.http.post(f"/models/{MODEL}/load").status_code == 403


def test_refusals_before_any_page_are_pages_for_a_browser(
    guarded: ServiceThread,
) -> None:
    with open_client(guarded.address, READER) as looking:
        refused = {
            403: looking.http.post(f"/models/{MODEL}/load"),
            421: looking.http.get("/", headers={"host": "evil.example"}),
            400: looking.http.get("/models/../x//y"),
        }
        for status, answer in refused.items():
            assert answer.status_code == status
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["connection"] == "close"
            assert "default-src" in answer.headers["content-security-policy"]
            assert "/roles" in Page(answer.text).links
        text = Page(refused[403].text).text
        assert "has the read role, which does not allow this" in text

        program = looking.http.post(
            f"/models/{MODEL}/load", headers={"accept": "application/json"}
        )
        assert program.json()["code"] == "forbidden"
        for path in ("/v1/models", "/healthz"):
            health = looking.http.get(path, headers={"host": "evil.example"})
            assert health.json()["status"] == 421


def test_delete_needs_an_administrator(guarded: ServiceThread) -> None:
    with (
        open_client(guarded.address, OPERATOR) as olga,
        open_client(guarded.address, ADMIN) as anna,
    ):
        page = olga.page(f"/models/{MODEL}")

        assert f"/models/{MODEL}/load" in page.links
        assert f"/models/{MODEL}/delete" not in page.links
        assert "This requires the admin role" in page.text
        assert olga.http.post(f"/models/{MODEL}/delete").status_code == 403
        assert anna.http.post(f"/models/{MODEL}/delete").status_code == 303


def test_read_only_service_says_so(tmp_path: Path, ollama: SandboxThread) -> None:
    with (
        run_in_thread(tmp_path / "herd.db", ollama.address, read_only=True) as running,
        open_client(running.address) as looking,
    ):
        page = looking.page("/")

        assert "Actions are disabled: the service is read-only." in page.text
        assert not [link for link in page.links if link.endswith("/load")]
        assert looking.http.post(f"/models/{MODEL}/load").status_code == 403


def test_action_is_confirmed_with_its_event(
    herdbook: ServiceThread, browser: HtmlClient
) -> None:
    answer = browser.send(f"/models/{MODEL}/use", purpose="review")
    position = herdbook.get("/v1/log/head")["position"]

    def raw(done: object) -> str:
        return browser.http.get(f"/models/{MODEL}?done={done}").text

    assert answer.headers["location"].endswith(f"?done={position}")
    assert 'id="toast"' in raw(position)
    assert 'id="toast"' not in raw(999_999)
    assert 'id="toast"' not in raw("x")


def test_action_without_an_event_is_confirmed_too(
    herdbook: ServiceThread, browser: HtmlClient
) -> None:
    unloaded = browser.send(f"/models/{MODEL}/unload")
    saved = browser.send(f"/models/{MODEL}/configuration", version=version_of(herdbook))

    for answer in (unloaded, saved):
        page = browser.page(answer.headers["location"].partition("#")[0])
        assert "Nothing has changed." in page.text


def test_deletion_has_the_focus_on_cancel(browser: HtmlClient) -> None:
    delete = browser.http.get(f"/models/{MODEL}/delete").text
    load = browser.http.get(f"/models/{MODEL}/load").text

    assert "data-close autofocus>Cancel</a>" in delete
    assert "data-close autofocus" not in load


def test_delete_names_what_speaks_against_it(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    before = browser.page(f"/models/{MODEL}/delete").text
    settings = {"settings": {"pinned": True}}
    path = f"/v1/models/{MODEL}/configuration"
    herdbook.http.put(path, json=settings, headers={"if-match": "*"})

    asked = browser.page(f"/models/{MODEL}/delete").text

    assert "pinned" not in before
    assert "It is pinned, to be kept in memory." in asked
