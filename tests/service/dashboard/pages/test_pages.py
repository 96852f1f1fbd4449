"""The pages, as a browser without a script gets them from a real service."""

from __future__ import annotations

import re
import socket
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote

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
    version_of,
)

PAGES = [
    *("/", "/?gone=1", "/roles", "/log", "/log/1", "/node", "/compare?from=1"),
    *("/figures?of=memory", "/figures?of=disk&span=all", "/node?span=week"),
    *("/log?type=ModelDiscovered", "/log?model=llama", "/log?cause=observed"),
    *("/log?actor=reconciler&since=2+hours+ago&until=now", "/log?before=3"),
    *(f"/models/{MODEL}", f"/models/{MODEL}?span=hour", f"/models/{MODEL}?before=5"),
    *("/usage", "/usage?range=7d", "/usage?range=30d", "/usage?range=all"),
    *("/models/never:seen", "/models/hf.co/some/body:q4", "/models/hf.co%2Fa%2Fb"),
    f"/models/{MODEL}/configuration",
]


@pytest.mark.parametrize("path", PAGES)
def test_current_and_past_pages_are_well_formed(browser: HtmlClient, path: str) -> None:
    now = browser.page(path)
    then = browser.page(f"{path}{'&' if '?' in path else '?'}as_of=9")

    assert len(now.ids) == len(set(now.ids))
    assert "as of" in then.text
    assert "Actions are disabled" in then.text
    for link in then.links:
        leaves = link.startswith(("/?as_of=", "/compare?from=9"))
        leaves = leaves or _same(link, path)
        assert leaves or not link.startswith("/") or "as_of=9" in link, link


def test_past_page_has_no_live_updates(browser: HtmlClient) -> None:
    now = browser.http.get("/").text
    then = browser.http.get("/?as_of=3").text

    assert "data-after=" in now
    assert "data-after=" not in then
    assert 'class="past"' in then


def test_past_state_does_not_change(browser: HtmlClient) -> None:
    links = browser.page("/log?as_of=1+min+ago").links

    kept = {found[1] for link in links if (found := re.search(r"as_of=([^&]+)", link))}
    kept.remove("1")  # one event later
    assert len(kept) == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", kept.pop().replace("%3A", ":"))


def test_models_page_shows_each_model_with_its_actions(browser: HtmlClient) -> None:
    page = browser.page("/")

    assert f"/models/{MODEL}" in page.links
    assert f"/models/{MODEL}/load" in page.links
    assert "5 models" in page.text
    assert "now · event" in page.text


def test_models_page_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    with (
        run_in_thread(tmp_path / "herd.db", "127.0.0.1:9") as running,
        open_client(running.address) as looking,
    ):
        page = looking.page("/")

    assert "No connection to the server yet" in page.text
    assert "ollama serve" in page.text


def test_banner_is_on_every_page(tmp_path: Path, ollama: SandboxThread) -> None:
    with (
        run_in_thread(tmp_path / "herd.db", ollama.address, banner=HOSTILE) as running,
        open_client(running.address) as looking,
    ):
        pages = [looking.page("/"), looking.page("/nowhere", 404)]

    assert all(SHOWN in page.text for page in pages)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nowhere", 404, "Path '/nowhere' does not exist."),
        ("/log/999999", 404, "does not exist"),
        ("/?as_of=soon", 400, "cannot be read as a time"),
        ("/?as_of=999999", 400, "does not exist yet"),
        ("/log?cause=whim", 400, "is not a cause"),
        ("/log?cause=comand", 400, "Did you mean 'command'?"),
        ("/log?type=ModelDelted", 400, "Did you mean 'ModelDeleted'? Back"),
        ("/models/gema3:4b/load", 404, "Did you mean gemma3:4b? Back"),
        ("/models/gema3:4b/delete", 200, "Did you mean gemma3:4b? Back"),
        ("/figures?of=memry", 400, "Did you mean 'memory'?"),
        ("/bulk?do=delte", 400, "Did you mean 'delete'?"),
        ("/log?type=Nothing", 400, "is not an event type"),
        ("/log?since=soon", 400, "cannot be read as a time"),
        ("/usage?range=1h", 400, "Use one of: 24h, 7d, 30d, all"),
        ("/usage?range=3d", 400, "Did you mean"),
        ("/node?span=year", 400, "Unknown span"),
        ("/?view=table", 400, "Unknown view"),
        ("/pull?model=", 400, "is missing"),
        ("/pull?model=a+b", 400, "is not a valid model name"),
        ("/static/nothing.js", 404, "does not exist"),
    ],
)
def test_error_page_shows_the_reason(
    browser: HtmlClient, path: str, status: int, words: str
) -> None:
    page = browser.page(path, status)

    assert words in page.text
    assert "/" in page.links


def test_static_files_are_cached_by_content(browser: HtmlClient) -> None:
    link = re.search(
        r'href="(/static/herdbook.css\?v=\w+)"', browser.http.get("/").text
    )
    assert link

    kept = browser.http.get(link[1])
    other = browser.http.get("/static/herdbook.css?v=older")

    assert "immutable" in kept.headers["cache-control"]
    assert other.headers["cache-control"] == "no-cache"
    assert kept.headers["content-type"] == "text/css; charset=utf-8"


def test_name_with_slashes_is_one_name(browser: HtmlClient) -> None:
    page = browser.page("/models/hf.co/some/body:q4")

    assert "No events for hf.co/some/body:q4 yet" in page.text
    assert "/models/hf.co%2Fsome%2Fbody:q4/pull" in page.links
    assert (
        "Pull hf.co/some/body:q4?"
        in browser.page("/models/hf.co%2Fsome%2Fbody:q4/pull").text
    )


def test_event_shows_its_envelope_and_its_operation(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    browser.send(f"/models/{MODEL}/load")
    wait_until(lambda: "ModelLoaded" in event_types(herdbook, MODEL))
    event = next(
        e
        for e in herdbook.get("/v1/events?newest_first=true")["events"]
        if e["type"] == "ModelLoaded"
    )
    before = herdbook.get(f"/v1/events/{event['position'] - 1}")

    page = browser.page(f"/log/{event['position']}")

    for word in (event["hash"], before["hash"], event["event_id"], "load started"):
        assert word in page.text


def test_roles_page_shows_choices_and_suggestions(
    browser: HtmlClient,
) -> None:
    page = browser.page("/roles")

    assert "coding needs completion and coding" in page.text
    assert "suggested" in page.text
    assert any(link.endswith("/pull") for link in page.links)


def test_server_page_shows_server_log_and_diagnosis(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    page = browser.page("/node")

    assert herdbook.get("/v1/log/head")["hash"] in page.text
    assert "connected since" in page.text
    assert "Diagnosis" in page.text


def test_refresh_is_confirmed_with_or_without_a_change(
    browser: HtmlClient, ollama: SandboxThread
) -> None:
    unchanged = browser.send("/node/refresh").headers["location"]
    copied = {"source": MODEL, "destination": "twin:latest"}
    httpx.post(f"{ollama.address}/api/copy", json=copied).raise_for_status()
    changed = browser.send("/node/refresh").headers["location"]

    assert "Nothing has changed on the server." in browser.page(unchanged).text
    assert changed.startswith("/node?done=")
    assert 'id="toast"' in browser.http.get(changed).text


def test_server_page_shows_who_loaded_a_model_and_its_last_use(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    herdbook.operate("load", MODEL)
    loaded = herdbook.get("/v1/log/head")["position"]
    herdbook.http.post(f"/v1/models/{MODEL}/uses", json={})
    herdbook.operate("load", MODEL, options={"num_ctx": 2048})
    reloaded = herdbook.get("/v1/log/head")["position"]

    now, then = browser.page("/node"), browser.page(f"/node?as_of={loaded}")

    assert "just now, by api:local just now by api:local" in now.text
    assert f"/log/{reloaded}" in now.links
    assert f"/log/{loaded}?as_of={loaded}" in then.links


def test_compare_shows_what_differs(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    begin = herdbook.get("/v1/log/head")["position"]
    browser.send(
        f"/models/{MODEL}/configuration", version=version_of(herdbook), num_ctx="4096"
    )

    page = browser.page(f"/compare?from={begin}")

    assert "setting num_ctx" in page.text
    assert "No differences." in browser.page("/compare?from=1&to=1").text
    assert "Choose two times" in browser.page("/compare").text


def test_times_are_shown_in_the_time_zone_of_the_reader(browser: HtmlClient) -> None:
    def clock(zone: str) -> str:
        answer = browser.http.get("/", headers={"cookie": f"zone={zone}"})
        found = re.search(r'id="clock"[^>]*>(\d\d):', answer.text)
        assert found
        return found[1]

    hours = int(clock("Asia%2FTokyo")) - int(clock("UTC"))
    assert hours % 24 in (9, 10, 8)  # between the two an hour may end


def test_search_shows_the_models_whose_name_contains_the_text(
    browser: HtmlClient,
) -> None:
    page = browser.page("/?find=LLAMA")

    assert f"/models/{MODEL}" in page.links
    assert "/models/smollm2:135m" not in page.links
    assert (
        f"No models match “{SHOWN}”." in browser.page(f"/?find={quote(HOSTILE)}").text
    )


def test_empty_end_compares_with_now(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    begin = herdbook.get("/v1/log/head")["position"]
    browser.send(
        f"/models/{MODEL}/configuration", version=version_of(herdbook), num_ctx="4096"
    )

    links = browser.page(f"/?as_of={begin}").links

    (compare,) = (link for link in links if link.startswith("/compare"))
    assert "setting num_ctx" in browser.page(compare).text


def _same(link: str, path: str) -> bool:
    """Return whether a link leads to a page itself: Back to now."""
    one, other = (unquote(each).partition("?")[0] for each in (link, path))
    return one == other


def test_models_page_shows_an_interrupted_pull(
    tmp_path: Path, slow_ollama: SandboxThread
) -> None:
    log, body = tmp_path / "herd.db", {"kind": "pull", "model": "qwen3:0.6b"}
    with run_in_thread(log, slow_ollama.address) as first:
        result = first.http.post("/v1/operations", json=body).json()
        while first.get(f"/v1/operations/{result['id']}")["progress"] is None:
            pass
    with run_in_thread(log, slow_ollama.address) as second:
        page = Page(second.http.get("/", headers={"accept": "text/html"}).text)

    assert "qwen3:0.6b" in page.text
    assert "pull interrupted" in page.text
    assert "Pull again" in page.text
    assert "Pull it again to resume" in page.text


def test_pages_contain_no_invisible_characters(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    hostile = "a\u202eb\u2066c\u200bd\u2028e"
    herdbook.http.post(f"/v1/models/{MODEL}/uses", json={"purpose": hostile})
    herdbook.http.put(
        f"/v1/models/{MODEL}/configuration",
        json={"settings": {"notes": hostile}, "note": hostile},
        headers={"if-match": "*"},
    ).raise_for_status()

    for path in (
        "/log",
        f"/models/{MODEL}",
        f"/models/{MODEL}/configuration",
        f"/?find={quote(hostile)}",
        f"/log?actor={quote(hostile)}",
    ):
        text = browser.http.get(path).text
        assert not set("\u202e\u2066\u200b\u2028") & set(text)
    page = browser.page(f"/models/{MODEL}/configuration")
    assert " ".join(hostile.split()) in page.text  # the form sends it back as it was


def names_on(browser: HtmlClient, path: str) -> list[str]:
    rows = re.findall(
        r'class="c-name"><a class="name" href="[^"]*">([^<]*)</a>',
        browser.http.get(path).text,
    )
    return list(rows)


def test_models_are_sorted_by_a_column(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    sizes = {one["name"]: one["size_bytes"] for one in herdbook.get("/v1/models")}

    assert names_on(browser, "/?sort=name") == sorted(sizes)
    by_size = [sizes[name] for name in names_on(browser, "/?sort=size")]
    assert by_size == sorted(by_size, reverse=True)
    page = browser.http.get("/?sort=size").text
    assert 'aria-current="true">Size' in page
    assert page.count("aria-sort") == page.count('aria-sort="descending"') == 1
    assert "sort=size" in browser.http.get("/?sort=name&find=ll").text


def test_second_click_on_a_column_reverses_the_order(browser: HtmlClient) -> None:
    for key in ("state", "name", "size", "context", "can", "used"):
        first = browser.http.get(f"/?sort={key}").text
        assert f'href="/?sort={key}&amp;reverse=1" aria-current="true"' in first
        second = browser.http.get(f"/?sort={key}&reverse=1").text
        assert f'href="/?sort={key}" aria-current="true"' in second
        orders = {re.findall('aria-sort="(.*?)"', page)[0] for page in (first, second)}
        assert orders == {"ascending", "descending"}
    by_name = names_on(browser, "/?sort=name")
    assert names_on(browser, "/?sort=name&reverse=1") == by_name[::-1]
    form = browser.http.get("/?sort=name&reverse=1&find=l").text
    assert '<input type="hidden" name="reverse" value="1">' in form


def test_models_are_filtered_by_capability_state_and_family(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    models = herdbook.get("/v1/models")
    embedding = {
        m["name"] for m in models if m["capabilities"].get("embedding", {}).get("value")
    }

    assert set(names_on(browser, "/?can=embedding")) == embedding
    assert names_on(browser, "/?state=loaded") == []
    assert "No models match" in browser.http.get("/?state=loaded").text
    family = models[0]["family"]
    expected = {m["name"] for m in models if (m["family"] or "").startswith(family)}
    assert set(names_on(browser, f"/?family={family}")) == expected
    large = {m["name"] for m in models if (m["size_bytes"] or 0) >= 3_000_000_000}
    assert set(names_on(browser, "/?larger=3GB")) == large
    assert browser.http.get("/?larger=much").status_code == 400
    browser.send(f"/models/{MODEL}/delete")
    assert names_on(browser, "/?state=deleted") == [MODEL]


@pytest.mark.parametrize("query", ["sort=sizes", "can=tool", "state=loded"])
def test_unknown_filters_suggest_a_value(browser: HtmlClient, query: str) -> None:
    answer = browser.http.get(f"/?{query}")

    assert answer.status_code == 400
    assert "Did you mean" in answer.text


def test_errors_are_at_the_top_of_the_page(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    browser.send("/models/no-such:1b/pull")
    wait_until(lambda: "Pull again" in browser.page("/").text)

    assert names_on(browser, "/")[0] == "no-such:1b"


def test_slider_is_an_axis_of_time(herdbook: ServiceThread) -> None:
    event = herdbook.get("/v1/events/3")
    at = round(datetime.fromisoformat(event["recorded_at"]).timestamp() * 1000) + 1

    with open_client(herdbook.address) as browser:
        answer = browser.http.get(f"/log?time={at}")
        browser.page("/log?time=never", 400)
        browser.page(f"/log?time={10**30}", 400)

    shown = re.search(r'name="time" min="(\d+)" max="(\d+)" value="(\d+)"', answer.text)
    assert shown is not None
    first, last, value = map(int, shown.groups())
    assert first < value <= at < last
    assert "This page shows the state at that time" in answer.text


def test_time_field_accepts_times_after_the_page_was_opened(
    browser: HtmlClient,
) -> None:
    field = re.search(r"<input[^>]*datetime-local[^>]*>", browser.http.get("/").text)

    assert field is not None
    assert "max=" not in field[0]
    browser.page("/?as_of=2999-01-01T00:00:00", 400)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nowhere", 404), ("/log/99999", 404), ("/log?since=never", 400)],
)
def test_error_page_has_the_navigation(
    browser: HtmlClient, path: str, status: int
) -> None:
    page = browser.page(path, status)

    assert page.links[:6] == ["/", "/", "/roles", "/usage", "/log", "/node"]


def test_browser_that_sends_too_large_a_head_gets_a_page(
    herdbook: ServiceThread,
) -> None:
    head = f"GET / HTTP/1.1\r\nAccept: text/html\r\nCookie: {'x' * 70_000}\r\n\r\n"
    host, _, port = herdbook.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode())
        answer = b"".join(iter(lambda: client.recv(65_536), b"")).decode()

    assert answer.startswith("HTTP/1.1 413 ")
    assert "content-type: text/html" in answer
    assert '<a href="/log" data-key="l">Log</a>' in answer
