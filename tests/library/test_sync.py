"""The synchronous manager: the methods of the asynchronous one, without asyncio."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_runner import SandboxThread

from herdbook import sandbox, sync
from herdbook.core import (
    CallerError,
    HerdbookError,
    ModelManager,
    ModelState,
    NotALogError,
    PullProgress,
    PullRefusedError,
)
from herdbook.events.facts import ModelUsed

NAME = "llama3.2:1b"
STUB = Path(__file__).parents[2] / "library" / "sync.pyi"


@pytest.fixture
def server() -> Iterator[SandboxThread]:
    """Serve a sandbox without models."""
    served = SandboxThread(
        sandbox.World(models="none", clock=sandbox.RealClock(speed=100))
    )
    yield served
    served.close()


@pytest.fixture
def manager(server: SandboxThread, tmp_path: Path) -> Iterator[sync.ModelManager]:
    with sync.ModelManager.open(tmp_path / "herd.db", ollama=server.address) as opened:
        yield opened


def test_model_is_pulled_loaded_and_used_without_asyncio(
    manager: sync.ModelManager,
) -> None:
    progress = list(manager.pull(NAME))
    status = manager.load(NAME, keep_alive="10m")

    assert isinstance(progress[-1], PullProgress)
    assert progress[-1].percent == 100
    assert status.state is ModelState.LOADED
    with manager.acting_as("cli:ann"):
        manager.mark_used(NAME, purpose="a test")
    assert manager.history(NAME)[-1].actor == "cli:ann"
    best = manager.recommend("general")
    assert best is not None
    assert best.name == NAME
    assert manager.registry.find(NAME) is not None
    assert manager.under_way() == []


def test_errors_are_those_of_the_asynchronous_manager(
    manager: sync.ModelManager,
) -> None:
    with pytest.raises(PullRefusedError, match="nosuch:1b cannot be pulled"):
        list(manager.pull("nosuch:1b"))
    with pytest.raises(CallerError, match="not a valid model name"):
        manager.get_status("a b")


def test_pull_that_is_left_early_is_cancelled(manager: sync.ModelManager) -> None:
    for _ in manager.pull(NAME):
        break

    assert manager.under_way() == []
    assert manager.history(NAME)[-1].type == "PullCancelled"


def test_events_follow_the_log(manager: sync.ModelManager) -> None:
    manager.ensure_available(NAME)
    after = manager.head().position
    manager.mark_used(NAME)

    events = manager.events(after=after)
    event = next(events)
    events.close()

    assert isinstance(event.data, ModelUsed)


def test_read_model_stays_as_it_was(manager: sync.ModelManager) -> None:
    before = manager.now()
    manager.ensure_available(NAME)

    assert not before.status(NAME).present
    assert manager.now().status(NAME).present


def test_closed_manager_says_so(server: SandboxThread, tmp_path: Path) -> None:
    with sync.ModelManager.open(tmp_path / "herd.db", ollama=server.address) as manager:
        pulling = manager.pull(NAME)
        next(pulling)

    with pytest.raises(CallerError, match="the manager is closed"):
        manager.all_statuses()
    with pytest.raises(HerdbookError):
        list(pulling)
    assert "herdbook loop" not in {thread.name for thread in threading.enumerate()}


def test_iterator_in_another_thread_ends_with_the_manager(
    server: SandboxThread, tmp_path: Path
) -> None:
    ends: list[HerdbookError] = []

    def wait(manager: sync.ModelManager, waiting: threading.Event) -> None:
        waiting.set()
        try:
            list(manager.events())
        except HerdbookError as error:
            ends.append(error)

    with sync.ModelManager.open(tmp_path / "herd.db", ollama=server.address) as manager:
        waiting = threading.Event()
        thread = threading.Thread(target=wait, args=(manager, waiting))
        thread.start()
        waiting.wait()
    thread.join(20)

    assert not thread.is_alive()
    assert {error.code for error in ends} <= {"invalid", "cancelled", "closed"}


def test_log_that_cannot_be_opened_raises_and_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    path.write_text("no log, but text that is long enough to be looked at " * 20)

    with pytest.raises(NotALogError), sync.ModelManager.open(path):
        pytest.fail("it opened")

    assert "herdbook loop" not in {thread.name for thread in threading.enumerate()}


def test_manager_created_directly_names_open() -> None:
    with pytest.raises(CallerError, match=r"with ModelManager\.open"):
        sync.ModelManager("herd.db")  # type: ignore[arg-type]
    with pytest.raises(CallerError, match=r"async with ModelManager\.open"):
        ModelManager("herd.db")


def test_stub_has_every_public_method() -> None:
    tree = ast.parse(STUB.read_text())
    (manager,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    stubbed = {
        node.name for node in manager.body if isinstance(node, ast.FunctionDef)
    } - {"__init__"}

    # A fleet opens managers with ``on``; it is asynchronous.
    public = {name for name in dir(ModelManager) if not name.startswith("_")} - {"on"}
    assert stubbed == public | {"registry"}
    assert stubbed == {n for n in dir(sync.ModelManager) if not n.startswith("_")}
