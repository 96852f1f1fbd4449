"""Settings of models: recorded, applied, and overriding capabilities."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.manager_fixture import (
    event_types,
    last_fact,
    recorded_events,
    serve_manager,
    serve_sandbox,
)

from herdbook.core import (
    Cause,
    FactSource,
    InvalidConfigurationError,
    ModelRole,
    ModelState,
    WrongExpectedVersionError,
)
from herdbook.events import facts

NAME = "llava:7b"


async def test_settings_are_accepted_as_keyword_arguments() -> None:
    async with serve_manager() as (_, manager):
        status = await manager.configure(
            NAME, {"temperature": 0.1, "num_ctx": 1024}, num_ctx=8192
        )

        assert status.settings == {"num_ctx": 8192, "temperature": 0.1}
        with pytest.raises(InvalidConfigurationError, match="num_ctxx"):
            await manager.configure(NAME, num_ctxx=1)


async def test_configuration_is_recorded_with_old_values_and_reason() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"num_ctx": 1024, "temperature": 0.1})
        await manager.configure(NAME, {"num_ctx": 2048}, note="longer letters")

        changed = await last_fact(manager, facts.ConfigurationChanged)

        assert changed == facts.ConfigurationChanged(
            set={"num_ctx": 2048}, was={"num_ctx": 1024}, note="longer letters"
        )
        assert (await recorded_events(manager, NAME))[-1].cause is Cause.CONFIGURATION


async def test_configure_returns_the_status_with_its_settings() -> None:
    async with serve_manager() as (_, manager):
        status = await manager.configure(NAME, {"num_ctx": 1024, "pinned": True})

        assert status.settings == {"num_ctx": 1024, "pinned": True}
        assert status.context_configured == 1024
        assert status.state is ModelState.AVAILABLE


async def test_unset_setting_has_no_value() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"num_ctx": 1024, "notes": "old"})

        status = await manager.configure(NAME, unset=["num_ctx"])

        assert status.settings == {"notes": "old"}
        changed = await last_fact(manager, facts.ConfigurationChanged)
        assert changed == facts.ConfigurationChanged(
            unset=("num_ctx",), was={"num_ctx": 1024}
        )


@pytest.mark.parametrize(
    ("settings", "unset"),
    [
        ({"num_ctx": "many"}, ()),
        ({"num_ctx": 3}, ()),
        ({"temperature": 3.5}, ()),
        ({"keep_alive": "5"}, ()),
        ({"num_context": 4096}, ()),
        ({"capability.flying": True}, ()),
        ({"num_ctx": 4096, "pinned": "maybe"}, ()),
        ({"num_ctx": 4096}, ("num_ctx",)),
        ({}, ("num_context",)),
    ],
)
async def test_rejected_settings_record_nothing(
    settings: dict[str, facts.Setting], unset: tuple[str, ...]
) -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position

        with pytest.raises(InvalidConfigurationError):
            await manager.configure(NAME, settings, unset=unset)

        assert (await manager.now()).position == before


async def test_unchanged_configuration_records_nothing() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"num_ctx": 1024})
        before = (await manager.now()).position

        await manager.configure(NAME, {"num_ctx": 1024}, unset=["notes"])

        assert (await manager.now()).position == before


async def test_options_for_returns_the_configured_options() -> None:
    async with serve_manager() as (_, manager):
        settings: dict[str, facts.Setting] = {
            "num_ctx": 1024,
            "options.top_k": 5,
            "keep_alive": "1h",
            "notes": "none of the server's business",
        }
        await manager.configure("plain", settings)

        options = await manager.options_for("plain")

        assert options.options == {"num_ctx": 1024, "top_k": 5}
        assert options.keep_alive == "1h"


async def test_options_for_returns_the_recommended_temperature() -> None:
    async with serve_manager() as (_, manager):
        assert (await manager.options_for("llama3.2:1b")).options == {
            "temperature": 0.7
        }

        await manager.configure("llama3.2:1b", {"temperature": 0.0})

        assert (await manager.options_for("llama3.2:1b")).options == {
            "temperature": 0.0
        }


async def test_denied_capability_removes_a_model_from_the_role() -> None:
    async with serve_manager() as (_, manager):
        assert await manager.recommend(ModelRole.VISION)

        await manager.configure(NAME, {"capability.vision": False})

        assert await manager.recommend(ModelRole.VISION) is None
        vision = (await manager.capabilities(NAME))["vision"]
        assert (vision.value, vision.source) == (False, FactSource.CONFIGURATION)


async def test_granted_capability_adds_a_model_to_the_role() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"capability.vision": False})
        await manager.configure("plain", {"capability.vision": True})
        chosen = await manager.recommend(ModelRole.VISION)
        assert chosen is not None
        assert chosen.name == "plain:latest"

        await manager.configure("plain", unset=["capability.vision"])

        assert await manager.recommend(ModelRole.VISION) is None


async def test_model_can_be_configured_before_it_exists() -> None:
    async with serve_manager("none") as (_, manager):
        status = await manager.configure("smollm2:135m", {"num_ctx": 1024})
        assert status.state is ModelState.NOT_PRESENT

        await manager.ensure_available("smollm2:135m")

        status = await manager.load("smollm2:135m")
        assert status.context_in_effect == 1024


async def test_configuration_survives_deletion() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"num_ctx": 1024})
        await manager.delete(NAME)

        await manager.ensure_available(NAME)

        assert (await manager.get_status(NAME)).context_configured == 1024
        assert (await event_types(manager, NAME)).count("ConfigurationChanged") == 1


async def test_configuration_at_the_expected_version_is_recorded() -> None:
    async with serve_manager() as (_, manager):
        version = (await manager.get_status(NAME)).version

        status = await manager.configure(NAME, {"num_ctx": 1024}, at_version=version)

        assert status.context_configured == 1024
        assert status.version == version + 1


async def test_model_that_was_never_seen_is_at_version_0() -> None:
    async with serve_manager("none") as (_, manager):
        status = await manager.configure(NAME, {"num_ctx": 1024}, at_version=0)

        assert status.version == 1


@pytest.mark.parametrize("settings", [{"num_ctx": 2048}, {"num_ctx": 1024}])
async def test_configuration_at_another_version_is_refused(
    settings: dict[str, facts.Setting],
) -> None:
    """Also one that would change nothing: it was decided on something else."""
    async with serve_manager() as (_, manager):
        old = (await manager.get_status(NAME)).version
        await manager.configure(NAME, {"num_ctx": 1024})
        before = (await manager.now()).position

        with pytest.raises(WrongExpectedVersionError) as raised:
            await manager.configure(NAME, settings, at_version=old)

        assert (raised.value.expected, raised.value.actual) == (str(old), old + 1)
        assert (await manager.now()).position == before


async def test_only_one_of_two_configurations_at_one_version_succeeds(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox() as server,
        server.open_manager(log) as one,
        server.open_manager(log) as other,
    ):
        version = (await one.get_status(NAME)).version

        ended = await asyncio.gather(
            one.configure(NAME, {"num_ctx": 1024}, at_version=version),
            other.configure(NAME, {"num_ctx": 2048}, at_version=version),
            return_exceptions=True,
        )

        (refused,) = [end for end in ended if isinstance(end, BaseException)]
        assert isinstance(refused, WrongExpectedVersionError)
        assert (await event_types(one, NAME)).count("ConfigurationChanged") == 1


async def test_both_configurations_at_any_version_succeed(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox() as server,
        server.open_manager(log) as one,
        server.open_manager(log) as other,
    ):
        await asyncio.gather(
            one.configure(NAME, {"num_ctx": 1024}),
            other.configure(NAME, {"temperature": 0.5}),
        )

        settings = (await one.get_status(NAME)).settings
        assert settings == {"num_ctx": 1024, "temperature": 0.5}
