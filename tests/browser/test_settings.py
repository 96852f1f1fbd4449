"""Settings: changed, shown with who changed them, and never overwritten unseen."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from support.service_program import RunningService
from support.web.browser import PageSession, events_and_actors

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">"
    "<script>document.title='owned'</script>"
)


def opened_editor(page: Page) -> None:
    """Unfold the form that changes settings."""
    page.get_by_text("Change settings").click()


@pytest.mark.parametrize("script", [True, False])
def test_change_shows_in_the_history_with_who(
    script: bool, herdbook: RunningService, visits: PageSession
) -> None:
    model = "gemma3:4b" if script else "phi3:3.8b"
    page = visits.open(herdbook, f"/models/{model}", java_script_enabled=script)

    opened_editor(page)
    page.get_by_label("num_ctx").fill("16384")
    page.get_by_label("notes").fill("for long files")
    page.get_by_label("Note for the history").fill("the agents asked")
    page.get_by_role("button", name="save").click()

    expect(page.locator("#toast")).to_contain_text("num_ctx set to 16384")
    settings = page.get_by_role("region", name="Settings")
    one = settings.get_by_role("row").filter(has_text="num_ctx")
    expect(one).to_contain_text("16384")
    expect(one).to_contain_text("api:local")
    expect(one).to_contain_text("the agents asked")
    history = page.get_by_role("region", name="History").get_by_role("listitem").first
    expect(history).to_contain_text("num_ctx")
    expect(history).to_contain_text("api:local")
    assert events_and_actors(herdbook, model)[-1] == (
        "ConfigurationChanged",
        "api:local",
    )
    kept = herdbook.get(f"/v1/models/{model}/configuration")
    assert kept["settings"] == {"num_ctx": 16384, "notes": "for long files"}


def test_second_of_two_is_shown_and_keeps_typed_text(
    herdbook: RunningService, visits: PageSession
) -> None:
    visits.expect_errors("409")
    model = "llama3.2:3b"
    one = visits.open(herdbook, f"/models/{model}/configuration")
    other = one.context.new_page()
    other.goto(f"/models/{model}/configuration")

    one.get_by_label("temperature").fill("0.7")
    one.get_by_role("button", name="save").click()
    one.wait_for_url(f"**/models/{model}#settings")
    other.get_by_label("num_ctx").fill("8192")
    other.get_by_label("Note for the history").fill("mine")
    other.get_by_role("button", name="save").click()

    alert = other.get_by_role("alert")
    expect(alert).to_contain_text("The settings have changed")
    expect(alert).to_contain_text("temperature")
    expect(alert).to_contain_text("api:local")
    expect(other.get_by_label("num_ctx")).to_have_value("8192")
    expect(other.get_by_label("temperature")).to_have_value("0.7")
    expect(other.get_by_label("Note for the history")).to_have_value("mine")
    assert len(events_and_actors(herdbook, model)) == 3, "nothing more was saved"
    other.get_by_role("button", name="save").click()
    other.wait_for_url(f"**/models/{model}#settings")

    kept = herdbook.get(f"/v1/models/{model}/configuration")
    assert kept["settings"] == {"num_ctx": 8192, "temperature": 0.7}


def test_wrong_value_is_shown_and_typed_text_stays(
    herdbook: RunningService, visits: PageSession
) -> None:
    visits.expect_errors("422")
    page = visits.open(herdbook, "/models/smollm2:135m/configuration")

    page.get_by_label("num_ctx").fill("many")
    page.get_by_label("notes").fill("a note of some length")
    page.get_by_role("button", name="save").click()

    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved")
    expect(page.get_by_label("num_ctx")).to_have_value("many")
    expect(page.get_by_label("notes")).to_have_value("a note of some length")
    assert "ConfigurationChanged" not in dict(
        events_and_actors(herdbook, "smollm2:135m")
    )


def test_typed_text_survives_page_updates(
    herdbook: RunningService, visits: PageSession
) -> None:
    model = "mistral:7b"
    page = visits.open(herdbook, f"/models/{model}")

    opened_editor(page)
    page.get_by_label("notes").fill("half a thou")
    herdbook.http.post(f"/v1/models/{model}/uses", json={"purpose": "review"})

    history = page.get_by_role("region", name="History")
    expect(history).to_contain_text("review")
    expect(page.get_by_label("notes")).to_have_value("half a thou")
    expect(page.get_by_label("notes")).to_be_focused()


def test_hostile_text_is_shown_as_text(
    herdbook: RunningService, visits: PageSession
) -> None:
    model = "tinyllama:1.1b"
    path = f"/v1/models/{model}"
    herdbook.http.post(f"{path}/uses", json={"purpose": HOSTILE}).raise_for_status()
    answer = herdbook.http.put(
        f"{path}/configuration",
        json={"settings": {"notes": HOSTILE}, "note": HOSTILE},
        headers={"if-match": "*"},
    )
    answer.raise_for_status()
    title = "tinyllama:1.1b · Herdbook"

    page = visits.open(herdbook, f"/models/{model}")
    expect(page.get_by_role("region", name="Settings")).to_contain_text(HOSTILE)
    expect(page.get_by_role("region", name="History")).to_contain_text(HOSTILE)
    expect(page).to_have_title(title)
    herdbook.http.post(f"{path}/uses", json={"purpose": f"again {HOSTILE}"})
    expect(page.get_by_role("region", name="History")).to_contain_text("again <img")
    expect(page).to_have_title(title)
    page.goto(f"/log?model={model}&actor=" + HOSTILE)
    expect(page.get_by_label("Actor")).to_have_value(HOSTILE)
    of_model = herdbook.get(f"/v1/events?stream_prefix=model/local/{model}&limit=1000")
    used = [one for one in of_model["events"] if one["type"] == "ModelUsed"]
    page.goto(f"/log/{used[-1]['position']}")
    expect(page.get_by_label("Data as JSON")).to_contain_text("<img")
    expect(page.get_by_role("heading", level=1)).to_contain_text("ModelUsed")
    visits.expect_errors("400")
    page.goto(f"/models/{quote(HOSTILE)}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        "is not a valid model name"
    )
    expect(page.locator("main img, main script")).to_have_count(0)
    expect(page).not_to_have_title("owned")
