"""The events of one model, of a short stream and of a long one."""

from __future__ import annotations

from support.manager_fixture import serve_manager

from herdbook.core import HistoryFilter
from herdbook.events.facts import ConfigurationChanged
from herdbook.events.streams import model_stream
from herdbook.service.dashboard import model_events
from herdbook.service.dashboard.event_list import newest_of
from herdbook.service.dashboard.model_events import NewestEvents


async def test_pages_of_a_stream_have_each_event_once_in_both_directions() -> None:
    async with serve_manager() as (_, manager):
        name = (await manager.all_statuses())[0].name
        stream = model_stream("local", name)
        for purpose in range(7):
            await manager.mark_used(name, purpose=str(purpose))
        end = (await manager.now()).position
        known = await model_events.newest_events(manager, name, stream, until=end)
        expected = [one.position for one in await manager.history(name)][::-1]

        for newest in (known, NewestEvents([], whole=False)):
            found: list[int] = []
            before: int | None = end + 1
            while before is not None:
                page = await model_events.page(
                    manager, stream, newest, before=before, limit=3
                )
                found += [entry.position for entry in page.entries]
                before = page.older

            assert found == expected


async def test_timeline_ends_at_the_chosen_time() -> None:
    async with serve_manager() as (_, manager):
        name = (await manager.all_statuses())[0].name
        end = (await manager.now()).position
        await manager.mark_used(name)

        known = await model_events.newest_events(
            manager, name, model_stream("local", name), until=end
        )

        assert known.entries
        assert all(entry.position <= end for entry in known.entries)


async def test_setters_are_the_newest_events_of_current_settings() -> None:
    async with serve_manager() as (_, manager):
        name = (await manager.all_statuses())[0].name
        await manager.configure(name, {"num_ctx": 1024, "notes": "a"}, note="first")
        await manager.configure(name, {"num_ctx": 2048}, note="second")
        known = await model_events.newest_events(
            manager,
            name,
            model_stream("local", name),
            until=(await manager.now()).position,
        )

        found = await model_events.setters(manager, known, ["notes", "num_ctx"])

        data = {key: event.data for key, event in found.items()}
        notes = {
            key: change.note
            for key, change in data.items()
            if isinstance(change, ConfigurationChanged)
        }
        assert notes == {"notes": "first", "num_ctx": "second"}


async def test_progress_is_left_out() -> None:
    assert not [
        name for name in model_events.SHOWN_TYPES if name.endswith("Progressed")
    ]
    types = model_events.SHOWN_TYPES
    assert HistoryFilter(types=types).types == types


async def test_newest_event_of_a_stream_is_found_behind_many_others() -> None:
    async with serve_manager("some") as (_, manager):
        status = await manager.mark_used("llama3.2:3b")
        stream = model_stream(status.node, status.name)
        wanted = (await manager.head()).position
        for _ in range(25):
            await manager.mark_used("qwen2.5-coder:7b")

        assert await newest_of(manager, stream) == wanted
        assert await newest_of(manager, stream, "ModelUsed") == wanted
        assert await newest_of(manager, stream, "LoadStarted") is None
