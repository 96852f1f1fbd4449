"""Tables of models in states that take long to bring about for real."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from herdbook.cli.output import Line, table_lines
from herdbook.cli.render import models_table
from herdbook.cli.render.model_card import Card
from herdbook.core import Cause, ModelRegistry, ReadModel, RecordedEvent
from herdbook.core.views import Views
from herdbook.events import facts
from herdbook.events.facts import AnyFact, FactSource, Runner
from herdbook.events.recorded import Position
from herdbook.events.streams import model_stream, node_stream
from herdbook.presentation import wording
from herdbook.presentation.times import Now
from herdbook.projections.sentences import counted

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = "a" * 64
REGISTRY = ModelRegistry()


def moment_of(*result: tuple[str, AnyFact]) -> ReadModel:
    """Return the moment after some facts, a minute apart, the last at noon."""
    views = Views()
    versions: dict[str, int] = {}
    for at, (name, fact) in enumerate(result, start=1):
        stream = model_stream("local", name) if name else node_stream("local")
        versions[stream] = versions.get(stream, 0) + 1
        when = NOON - timedelta(minutes=len(result) - at)
        views.apply(
            RecordedEvent(
                position=Position(at),
                stream=stream,
                version=versions[stream],
                event_id=f"event-{at}",
                type=type(fact).__name__,
                schema=1,
                data=fact,
                occurred_at=when,
                recorded_at=when,
                actor="cli:ann",
                cause=Cause.COMMAND,
                correlation_id=None,
                causation_id=None,
                hash=f"{at:064x}",
            )
        )
    return ReadModel(views, REGISTRY, "local")


def shown(moment: ReadModel, *, bars: bool = False) -> list[str]:
    table = models_table.ModelsTable([moment], REGISTRY, Now(NOON, UTC), bars=bars)
    return plain(table_lines(table.columns, table.rows(table.chosen()), headers=False))


def plain(lines: list[Line]) -> list[str]:
    return ["".join(piece.text for piece in line) for line in lines]


def found(size: int = 4_900_000_000) -> AnyFact:
    return facts.ModelDiscovered(digest=DIGEST, size_bytes=size)


PULLING = (
    ("gemma3:27b", facts.PullStarted(instance="one")),
    (
        "gemma3:27b",
        facts.PullProgressed(completed_bytes=6_600_000_000, total_bytes=17_400_000_000),
    ),
)


def test_a_pull_is_shown_below_its_model() -> None:
    assert shown(moment_of(*PULLING)) == [
        f"gemma3:27b   pulling   17.4 GB   128k   vision   {wording.NOTHING}",
        "  pull 37%   6.6 of 17.4 GB   by cli:ann, 1 min ago",
    ]


def test_pull_has_a_progress_bar_on_a_terminal() -> None:
    line = shown(moment_of(*PULLING), bars=True)[1]

    assert line.startswith("  pull ━━━━━━━━━━━━────")


def test_load_is_shown_without_numbers() -> None:
    moment = moment_of(("a:1b", found()), ("a:1b", facts.LoadStarted(instance="one")))

    assert shown(moment)[1] == "  load started by cli:ann, just now"


def test_update_is_shown_without_changing_the_state() -> None:
    moment = moment_of(("a:1b", found()), ("a:1b", facts.UpdateStarted(instance="one")))

    lines = shown(moment)

    assert "available, updating" in lines[0]
    assert lines[1] == "  update started by cli:ann, just now"


def test_cloud_model_has_no_local_size() -> None:
    cloud = facts.ModelDiscovered(
        digest=DIGEST, size_bytes=300, remote_host="ollama.com"
    )

    assert "cloud" in shown(moment_of(("big:cloud", cloud)))[0]


def test_failed_pull_of_an_absent_model_is_listed_for_a_day() -> None:
    moment = moment_of(
        ("bad:1b", facts.PullStarted(instance="one")),
        ("bad:1b", facts.PullFailed(kind="not_in_registry", message="no such model")),
        ("here:1b", found()),
        ("here:1b", facts.LoadStarted(instance="one")),
        ("here:1b", facts.LoadFailed(kind="out_of_memory", message="too big")),
    )

    def names(later: timedelta, *, deleted: bool = False) -> list[str]:
        now = Now(NOON + later, UTC)
        table = models_table.ModelsTable([moment], REGISTRY, now)
        return [status.name for status in table.chosen(deleted=deleted)]

    assert names(timedelta(hours=23)) == ["bad:1b", "here:1b"]
    assert names(timedelta(hours=24)) == ["here:1b"]
    assert names(timedelta(hours=24), deleted=True) == ["bad:1b", "here:1b"]


def test_models_are_sorted_by_how_soon_they_can_be_used() -> None:
    moment = moment_of(
        ("bad:1b", facts.PullStarted(instance="one")),
        ("bad:1b", facts.PullFailed(kind="disk_full", message="bad:1b is too big")),
        ("z:1b", found()),
        ("b:1b", found()),
        *PULLING,
        ("z:1b", facts.ModelUsed()),
    )

    names = [line.split()[0] for line in shown(moment) if not line.startswith(" ")]

    assert names == ["z:1b", "b:1b", "gemma3:27b", "bad:1b"]


def test_failure_does_not_repeat_the_name() -> None:
    moment = moment_of(
        ("bad:1b", facts.PullStarted(instance="one")),
        (
            "bad:1b",
            facts.PullFailed(kind="x", message="bad:1b cannot be pulled: no luck"),
        ),
    )

    assert shown(moment)[1] == "  pull failed just now: no luck"


def test_details_of_a_runner_under_another_name_say_so() -> None:
    runner = Runner(
        name="other:1b", digest=DIGEST, size_bytes=2_000_000_000, size_vram_bytes=0
    )
    moment = moment_of(("a:1b", found()), ("a:1b", facts.ModelLoaded(runner=runner)))

    card = Card(moment.status("a:1b"), moment, [], Now(NOON, UTC))

    assert "  memory      2.0 GB, CPU, loaded as other:1b" in plain(list(card.lines()))


def test_details_of_a_cloud_model_name_its_host() -> None:
    cloud = facts.ModelDiscovered(
        digest=DIGEST, size_bytes=300, remote_host="ollama.com"
    )
    moment = moment_of(("big:cloud", cloud))

    card = Card(moment.status("big:cloud"), moment, [], Now(NOON, UTC))

    assert "  weights     cloud model of ollama.com" in plain(list(card.lines()))


def test_details_name_the_models_that_share_the_weights() -> None:
    detected = facts.CapabilitiesDetected(
        digest=DIGEST,
        weights="b" * 64,
        parameter_count=125_000,
        context_trained=8192,
        context_source=FactSource.SHOW,
        capabilities={},
    )
    moment = moment_of(
        ("a:1b", found()), ("a:1b", detected), ("b:1b", found()), ("b:1b", detected)
    )

    card = Card(moment.status("a:1b"), moment, [], Now(NOON, UTC))

    weights = plain(list(card.lines()))[1]
    assert weights.endswith("bbbbbbbbbbbb, 125 k parameters, 4.9 GB, shared with b:1b")


def test_wording_shows_small_counts_as_they_are() -> None:
    assert counted(1, "model") == "1 model"
    assert counted(1284, "event") == "1,284 events"
    assert wording.of_text(287_000_000, 4_900_000_000) == "287 MB of 4.9 GB"
    assert wording.left_text(0.2) == "1 s left"
    assert wording.capabilities_text(["completion", "coding", "audio"]) == "code audio"


def test_unknown_figures_are_shown_as_unknown() -> None:
    runner = facts.Runner(name="a:1b", digest=DIGEST, context_length=0, size_bytes=1)
    loaded = (("a:1b", found()), ("a:1b", facts.ModelLoaded(runner=runner)))
    (line,) = shown(moment_of(*loaded))

    assert "0 of" not in line
    assert "–" in line  # noqa: RUF001 - an empty cell


def test_pull_is_shown_as_pulling() -> None:
    assert "pulling" in shown(moment_of(*PULLING))[0]
