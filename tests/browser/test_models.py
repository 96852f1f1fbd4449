"""The models page and the actions on a model, with and without the script."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from support.service_program import RunningService
from support.waiting import wait_until
from support.web.browser import (
    PageSession,
    events_and_actors,
    expect_state,
    row,
)

WITH_AND_WITHOUT = pytest.mark.parametrize("script", [True, False])


def test_models_page_shows_every_model(
    herdbook: RunningService, visits: PageSession
) -> None:
    result = {each["name"] for each in herdbook.get("/v1/models")}

    page = visits.open(herdbook)

    names = page.get_by_role("rowheader").get_by_role("link").all_inner_texts()
    assert result <= set(names)
    expect(row(page, "qwen2.5-coder:7b")).to_contain_text("4.7 GB")
    expect(row(page, "qwen2.5-coder:7b")).to_contain_text("tools code insert")
    expect(page.get_by_role("status").first).to_have_text("live")


@WITH_AND_WITHOUT
def test_model_can_be_loaded_and_unloaded(
    script: bool, herdbook: RunningService, visits: PageSession
) -> None:
    model = "gemma3:4b" if script else "phi3:3.8b"
    page = visits.open(herdbook, java_script_enabled=script)

    row(page, model).get_by_role("link", name="load").click()
    expect(
        page.get_by_role("heading", name=f"Load {model} into memory?")
    ).to_be_visible()
    page.get_by_role("button", name="load").click()
    expect_state(page, herdbook, model, "loaded", script=script)
    page.get_by_role("link", name="unload").click()
    page.get_by_role("button", name="unload").click()
    expect_state(page, herdbook, model, "available", script=script)

    assert events_and_actors(herdbook, model)[-3:] == [
        ("LoadStarted", "api:local"),
        ("ModelLoaded", "api:local"),
        ("ModelUnloaded", "api:local"),
    ]


@WITH_AND_WITHOUT
def test_model_can_be_updated(
    script: bool, herdbook: RunningService, visits: PageSession
) -> None:
    model = "smollm2:135m" if script else "nomic-embed-text:latest"
    page = visits.open(herdbook, f"/models/{model}", java_script_enabled=script)

    page.get_by_role("link", name="update").click()
    page.get_by_role("button", name="update").click()
    wait_until(
        lambda: (
            events_and_actors(herdbook, model)[-1] == ("UpdateUnchanged", "api:local")
        )
    )
    expect_state(page, herdbook, model, "available", script=script)

    assert ("UpdateStarted", "api:local") in events_and_actors(herdbook, model)
    expect(page.get_by_role("region", name="History")).to_contain_text("up to date")


@WITH_AND_WITHOUT
def test_delete_shows_the_bytes(
    script: bool, herdbook: RunningService, visits: PageSession
) -> None:
    model, size = ("mistral:7b", "4.4 GB") if script else ("codellama:7b", "3.8 GB")
    page = visits.open(herdbook, f"/models/{model}", java_script_enabled=script)

    page.get_by_role("link", name="delete").click()
    asked = page.get_by_role("main").filter(has_text=f"Delete {model}?").last
    expect(asked).to_contain_text(size)
    page.get_by_role("button", name="delete").click()

    page.wait_for_url(re.compile(r"/(\?done=\d+)?$"))
    expect(page.locator("#toast")).to_contain_text("deleted")
    expect(row(page, model)).to_have_count(0)
    assert events_and_actors(herdbook, model)[-1] == ("ModelDeleted", "api:local")


@WITH_AND_WITHOUT
def test_model_can_be_pulled_by_its_name(
    script: bool, herdbook: RunningService, visits: PageSession
) -> None:
    model = "qwen3:0.6b" if script else "llama3.2:1b"
    page = visits.open(herdbook, java_script_enabled=script)

    page.get_by_label("Pull a model").fill(model)
    page.get_by_role("button", name="Pull model").click()
    expect(page.get_by_role("heading", name=f"Pull {model}?")).to_be_visible()
    page.get_by_role("main").get_by_role("button", name="pull").last.click()
    expect_state(page, herdbook, model, "available", script=script)

    result = events_and_actors(herdbook, model)
    assert result[0][0] == "PullStarted"
    assert {actor for _, actor in result} == {"api:local"}


def test_filter_applies_while_one_types(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, "/?find=a")
    before = page.get_by_role("rowheader").count()

    page.get_by_label("Filter", exact=True).fill("coder")

    rows = page.get_by_role("rowheader")
    expect(rows).to_have_count(1)
    assert before > 1
    expect(page).to_have_url(re.compile("find=coder"))
    page.get_by_role("link", name="Size").click()
    expect(page).to_have_url(re.compile("sort=size"))
    page.reload()
    expect(page.get_by_role("rowheader")).to_have_count(1)
