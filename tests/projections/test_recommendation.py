from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import fold

from herdbook.events import facts
from herdbook.events.codec import SCHEMAS
from herdbook.events.facts import AnyFact, Capability, FactSource, UnloadReason
from herdbook.events.lifecycle import INITIAL, TRANSITIONS, ModelState, allowed
from herdbook.events.recorded import Cause, Position, RecordedEvent
from herdbook.events.streams import model_stream, node_stream
from herdbook.projections.recommendation import RecommendationView
from herdbook.projections.roles import ModelRole

T0 = datetime(2026, 11, 24, tzinfo=UTC)
DIGEST = "d" * 64
RUNNER = facts.Runner(name="a", digest=DIGEST)


def event(
    position: int, stream: str, fact: AnyFact, *, schema: int = 1
) -> RecordedEvent:
    at = T0 + timedelta(seconds=position)
    return RecordedEvent(
        position=Position(position),
        stream=stream,
        version=position,
        event_id=str(position),
        type=type(fact).__name__,
        schema=schema,
        data=fact,
        occurred_at=at,
        recorded_at=at,
        actor="library:test",
        cause=Cause.OBSERVED,
        correlation_id=None,
        causation_id=None,
        hash="",
    )


def detected(
    *can: str, parameters: int | None = None, context: int = 32_768, **ranks: int
) -> AnyFact:
    return facts.CapabilitiesDetected(
        context_trained=context,
        context_source=FactSource.SHOW,
        parameter_count=parameters,
        capabilities={
            name: Capability(value=name in can, source=FactSource.SHOW)
            for name in ("completion", "tools", "coding", *can)
        },
        ranks=ranks,
    )


def found(size_bytes: int = 1) -> AnyFact:
    return facts.ModelDiscovered(digest=DIGEST, size_bytes=size_bytes)


CHATS = detected("completion")
LOADED = facts.ModelLoaded(runner=RUNNER)
UNLOADED = facts.ModelUnloaded(reason=UnloadReason.EXPIRED)
USED = facts.ModelUsed()
LOADING = facts.LoadStarted(instance="i")
FAILED = facts.LoadFailed(kind="out_of_memory", message="")
PULLING = facts.PullStarted(instance="i")


def view_of(*result: tuple[str, AnyFact], node: str = "local") -> RecommendationView:
    view = RecommendationView()
    for position, (name, fact) in enumerate(result, start=1):
        view.apply(event(position, model_stream(node, name), fact))
    return view


def history(name: str, *result: AnyFact) -> list[tuple[str, AnyFact]]:
    return [(name, fact) for fact in result]


def order(view: RecommendationView, role: ModelRole = ModelRole.GENERAL) -> list[str]:
    return [candidate.name for candidate in view.order(role)]


def why_not(view: RecommendationView, role: ModelRole) -> dict[str, tuple[str, ...]]:
    passed_over = view.explain(role).passed_over
    return {candidate.name: candidate.reasons for candidate in passed_over}


def test_most_recently_used_goes_first() -> None:
    view = view_of(
        *history("a", found(), CHATS, LOADED),
        *history("b", found(), CHATS, USED, UNLOADED),
        *history("c", found(), CHATS, USED, UNLOADED),
    )
    assert order(view) == ["c", "b", "a"]


def test_loaded_goes_before_available_then_rank_decides() -> None:
    view = view_of(
        *history("a", found(), detected("completion", general=2)),
        *history("b", found(), detected("completion", general=1)),
        *history("c", found(), CHATS, LOADED),
        *history("d", found(), CHATS),
    )
    assert order(view) == ["c", "b", "a", "d"]


def test_unknown_details_go_last_unless_the_model_was_used() -> None:
    capability = Capability(value=True, source=FactSource.DEFAULT)
    unknown = facts.CapabilitiesDetected(
        context_trained=4096,
        context_source=FactSource.DEFAULT,
        capabilities={"completion": capability},
    )
    granted = facts.ConfigurationChanged(set={"capability.completion": True}, unset=())
    view = view_of(
        *history("a", found(), unknown, LOADED),
        *history("b", found(), unknown, granted),
        *history("c", found(), CHATS),
        *history("d", found(), unknown, LOADED, USED),
    )
    assert order(view) == ["d", "b", "c", "a"]
    assert "details unknown, may not fit" in view.order(ModelRole.GENERAL)[-1].reasons


def test_fewer_failures_then_smaller_then_the_name() -> None:
    view = view_of(
        *history("a", found(1), CHATS, LOADING, FAILED, LOADING),
        ("a", facts.LoadCancelled()),
        *history("b", found(3), CHATS),
        *history("d", found(2), CHATS),
        *history("c", found(2), CHATS),
    )
    assert order(view) == ["c", "d", "b", "a"]
    assert view.order(ModelRole.GENERAL)[-1].reasons[-1] == ("last attempt failed")


def test_success_ends_the_count_of_failures() -> None:
    view = view_of(*history("a", found(), CHATS, LOADING, FAILED, LOADING, FAILED))
    view.apply(event(9, model_stream("local", "a"), LOADED))
    assert view.order(ModelRole.GENERAL)[0].failures == 0


def test_candidate_has_its_reasons_and_their_data() -> None:
    ability = detected("completion", "coding", coding=1)
    view = view_of(*history("a", found(7), ability, USED, UNLOADED))
    (candidate,) = view.order(ModelRole.CODING)
    assert candidate.reasons == (
        "used before",
        "available",
        "first for the coding role in the catalogue",
    )
    assert candidate.last_used_at == T0 + timedelta(seconds=3)
    assert (candidate.rank, candidate.size_bytes, candidate.node) == (1, 7, "local")
    assert candidate.state is ModelState.AVAILABLE


def test_missing_rank_is_a_reason() -> None:
    (candidate,) = view_of(*history("a", found(), CHATS)).order(ModelRole.GENERAL)
    assert "not ranked for the general role in the catalogue" in candidate.reasons
    assert "never used" in candidate.reasons


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ([found(), CHATS, LOADING], "loading"),
        ([CHATS, PULLING], "pulling"),
        ([found(), CHATS, facts.ModelDeleted()], "not present"),
        ([found(), CHATS, facts.ModelVanished()], "not present"),
        (
            [found(), CHATS, LOADING, FAILED, LOADING, FAILED],
            "last 2 attempts failed",
        ),
    ],
)
def test_model_that_cannot_be_used_now_is_passed_over(
    result: list[AnyFact], reason: str
) -> None:
    view = view_of(*history("a", *result))
    assert order(view) == []
    assert why_not(view, ModelRole.GENERAL) == {"a": (reason,)}


def test_model_that_was_never_looked_at_is_passed_over() -> None:
    view = view_of(*history("a", found()))
    assert why_not(view, ModelRole.GENERAL) == {"a": ("capabilities unknown",)}


@pytest.mark.parametrize(
    ("role", "ability", "lack"),
    [
        (ModelRole.CODING, CHATS, "does not support coding"),
        (ModelRole.TOOL_USE, CHATS, "does not support tools"),
        (ModelRole.VISION, CHATS, "does not support vision"),
        (ModelRole.THINKING, CHATS, "does not support thinking"),
        (ModelRole.EMBEDDING, CHATS, "does not support embedding"),
        (ModelRole.GENERAL, detected("embedding"), "does not support completion"),
        (
            ModelRole.FAST,
            detected("embedding", parameters=1),
            "does not support completion",
        ),
        (ModelRole.FAST, CHATS, "too large: a context of 32,768 tokens"),
        (
            ModelRole.FAST,
            detected("completion", parameters=4_200_000_000, context=8192),
            "too large: 4.2 billion parameters",
        ),
    ],
)
def test_model_that_lacks_what_the_role_needs_is_passed_over(
    role: ModelRole, ability: AnyFact, lack: str
) -> None:
    view = view_of(*history("a", found(), ability))
    assert why_not(view, role) == {"a": (lack,)}
    assert order(view, role) == []


@pytest.mark.parametrize(
    ("role", "ability"),
    [
        (ModelRole.FAST, detected("completion", parameters=4_000_000_000)),
        (ModelRole.FAST, detected("completion", context=8192)),
        (ModelRole.EMBEDDING, detected("embedding")),
        (ModelRole.VISION, detected("completion", "vision")),
    ],
)
def test_model_that_has_what_the_role_needs_is_chosen(
    role: ModelRole, ability: AnyFact
) -> None:
    assert order(view_of(*history("a", found(), ability)), role) == ["a"]


def test_candidate_has_all_reasons_that_apply() -> None:
    view = view_of(*history("a", CHATS))
    assert why_not(view, ModelRole.CODING) == {
        "a": ("not present", "does not support coding")
    }


def test_configuration_overrules_what_was_detected_until_it_is_unset() -> None:
    stream = model_stream("local", "a")
    view = view_of(*history("a", found(), detected("completion", "tools")))
    overrule = facts.ConfigurationChanged(
        set={"capability.coding": True, "capability.tools": False, "num_ctx": 8}
    )
    view.apply(event(3, stream, overrule))
    assert order(view, ModelRole.CODING) == ["a"]
    assert order(view, ModelRole.TOOL_USE) == []
    gone = ("capability.coding", "capability.tools", "num_ctx")
    view.apply(event(4, stream, facts.ConfigurationChanged(unset=gone)))
    assert order(view, ModelRole.CODING) == []
    assert order(view, ModelRole.TOOL_USE) == ["a"]


def test_order_is_asked_of_one_node_or_of_all() -> None:
    view = RecommendationView()
    streams = [model_stream(node, "a") for node in ("far", "near")]
    for position, (stream, fact) in enumerate(
        itertools.product(streams, (found(), CHATS)), start=1
    ):
        view.apply(event(position, stream, fact))
    general = ModelRole.GENERAL
    assert [candidate.node for candidate in view.order(general)] == ["far", "near"]
    assert [candidate.node for candidate in view.order(general, "near")] == ["near"]
    assert view.explain(general, "near").chosen == view.order(general, "near")


@pytest.mark.parametrize(
    ("stream", "fact"),
    [
        (node_stream("local"), facts.NodeReached(version="1", url="u")),
        ("elsewhere/1", found()),
    ],
)
def test_events_of_other_streams_change_nothing_but_the_position(
    stream: str, fact: AnyFact
) -> None:
    view = RecommendationView()
    view.apply(event(5, stream, fact))
    assert view.position == 5
    assert view.explain(ModelRole.GENERAL).passed_over == ()


def test_event_that_the_lifecycle_does_not_allow_moves_the_state_it_names() -> None:
    view = view_of(*history("a", UNLOADED))
    (other,) = view.explain(ModelRole.GENERAL).passed_over
    assert other.state is ModelState.AVAILABLE


PLAIN: dict[str, AnyFact] = {
    type(fact).__name__: fact
    for fact in (
        found(5),
        facts.ModelVanished(),
        facts.ModelDeleted(),
        PULLING,
        facts.PullProgressed(completed_bytes=1),
        facts.PullCompleted(digest=DIGEST, size_bytes=6),
        facts.PullFailed(kind="disk_full", message=""),
        facts.PullCancelled(),
        facts.PullInterrupted(instance="i"),
        facts.UpdateStarted(instance="i"),
        facts.UpdateProgressed(completed_bytes=1),
        facts.UpdateFailed(kind="stalled", message=""),
        facts.UpdateCancelled(),
        facts.UpdateInterrupted(instance="i"),
        facts.UpdateUnchanged(digest=DIGEST),
        facts.CancelRequested(activity="pull", instance="i"),
        facts.ModelUpdated(digest=DIGEST, size_bytes=7),
        LOADING,
        LOADED,
        FAILED,
        facts.LoadCancelled(),
        facts.LoadInterrupted(instance="i"),
        facts.ReloadStarted(instance="i"),
        facts.ReloadCompleted(runner=RUNNER, duration_s=1.0),
        facts.ReloadUnchanged(expires_at=T0, duration_s=1.0),
        facts.ReloadFailed(kind="out_of_memory", message=""),
        facts.ReloadCancelled(),
        facts.ReloadInterrupted(instance="i"),
        facts.RunnerChanged(runner=RUNNER),
        facts.KeepAliveRenewed(expires_at=T0),
        UNLOADED,
        USED,
        facts.UseFailed(
            endpoint="/api/chat",
            client="ann",
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            duration_s=1.0,
            outcome=facts.UseOutcome.CLIENT_LEFT,
        ),
        detected("completion", "tools", general=3),
        facts.ConfigurationChanged(set={"capability.vision": True}),
    )
}


@st.composite
def histories(draw: st.DrawFn) -> list[RecordedEvent]:
    """Draw any legal history of three models on two nodes."""
    streams = [model_stream(node, name) for node, name in ("xa", "xb", "ya")]
    states = dict.fromkeys(streams, INITIAL)
    events = []
    for position in range(1, draw(st.integers(0, 40)) + 1):
        stream = draw(st.sampled_from(streams))
        type_ = draw(st.sampled_from(allowed(states[stream])))
        states[stream] = TRANSITIONS[states[stream]][type_]
        fact, schema = PLAIN[type_], draw(st.integers(1, SCHEMAS[type_]))
        if isinstance(fact, facts.ModelUsed):
            fact = facts.ModelUsed(role=draw(st.sampled_from(["general", "", "fast"])))
        events.append(event(position, stream, fact, schema=schema))
    return events


@given(histories(), st.integers(0, 40))
def test_loaded_view_behaves_like_the_original(
    events: list[RecordedEvent], cut: int
) -> None:
    whole, half = RecommendationView(), RecommendationView()
    fold(whole, events)
    fold(half, events[:cut])
    resumed = RecommendationView.load(half.dump())
    fold(resumed, events[cut:])
    assert resumed.dump() == whole.dump()
    for role in ModelRole:
        assert resumed.explain(role) == whole.explain(role)


@given(histories(), st.sampled_from(ModelRole))
def test_every_model_is_either_chosen_or_passed_over_with_a_reason(
    events: list[RecordedEvent], role: ModelRole
) -> None:
    view = RecommendationView()
    fold(view, events)
    answer = view.explain(role)
    result = [f"model/{c.node}/{c.name}" for c in (*answer.chosen, *answer.passed_over)]
    assert sorted(result) == sorted({recorded.stream for recorded in events})
    assert all(c.reasons for c in (*answer.chosen, *answer.passed_over))
    usable = {ModelState.AVAILABLE, ModelState.LOADED}
    assert {candidate.state for candidate in answer.chosen} <= usable


def test_invalid_dump_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        RecommendationView.load(b"{}")


def test_first_is_the_first_of_the_order() -> None:
    view = view_of(
        *history("a", found(), CHATS, LOADED),
        *history("b", found(), CHATS, USED),
        *history("c", found(), CHATS),
    )
    for role in ModelRole:
        assert view.first(role) == next(iter(view.order(role)), None)
    assert view.first(ModelRole.GENERAL) is not None


CODES = detected("completion", "coding", coding=3)


def used_since_3(*result: tuple[str, AnyFact]) -> RecommendationView:
    """Return a view of a log that has uses of the newest schema."""
    view = RecommendationView()
    for position, (name, fact) in enumerate(result, start=1):
        view.apply(
            event(
                position,
                model_stream("local", name),
                fact,
                schema=SCHEMAS[type(fact).__name__],
            )
        )
    return view


def reasons(view: RecommendationView, role: ModelRole) -> dict[str, str]:
    return {candidate.name: candidate.reasons[0] for candidate in view.order(role)}


def test_use_for_a_role_counts_for_that_role_alone() -> None:
    able = detected("completion", "coding", "tools")
    view = used_since_3(
        *history("a", found(), able, facts.ModelUsed(), UNLOADED),
        *history("b", found(), able, facts.ModelUsed(role="coding"), UNLOADED),
    )

    assert order(view, ModelRole.CODING) == ["b", "a"]
    assert reasons(view, ModelRole.CODING) == {
        "a": "used before",
        "b": "used for the coding role",
    }
    assert order(view, ModelRole.GENERAL) == ["a", "b"]
    assert reasons(view, ModelRole.GENERAL) == {
        "a": "not used for the general role",
        "b": "not used for the general role",
    }
    last = {one.name: one.last_used_at for one in view.order(ModelRole.GENERAL)}
    assert last == {"a": None, "b": None}


def test_used_coding_model_is_not_first_for_general() -> None:
    view = used_since_3(
        *history("chat", found(), detected("completion", general=5)),
        *history("coder", found(), CODES, facts.ModelUsed(), UNLOADED),
    )

    assert order(view, ModelRole.GENERAL) == ["chat", "coder"]
    assert order(view, ModelRole.CODING) == ["coder"]
    assert reasons(view, ModelRole.CODING) == {"coder": "used before"}


def test_coding_model_that_is_ranked_for_a_role_is_suited_to_it() -> None:
    ability = detected("completion", "coding", coding=3, general=2)
    view = used_since_3(
        *history("chat", found(), detected("completion", general=1)),
        *history("coder", found(), ability, facts.ModelUsed(), UNLOADED),
    )

    assert order(view, ModelRole.GENERAL) == ["coder", "chat"]


def test_request_for_embeddings_counts_for_embedding_alone() -> None:
    both = detected("completion", "embedding")
    embeds = facts.ModelUsed(endpoint="/v1/embeddings")
    view = used_since_3(
        *history("a", found(), both),
        *history("b", found(), both, embeds, UNLOADED),
    )

    assert order(view, ModelRole.EMBEDDING) == ["b", "a"]
    assert reasons(view, ModelRole.EMBEDDING)["b"] == "used for the embedding role"
    assert order(view, ModelRole.GENERAL) == ["a", "b"]


def test_use_for_an_unknown_role_counts_like_one_without_a_role() -> None:
    view = used_since_3(
        *history("a", found(), CHATS),
        *history("b", found(), CHATS, facts.ModelUsed(role="poetry"), UNLOADED),
    )

    assert order(view) == ["b", "a"]
    assert reasons(view, ModelRole.GENERAL)["b"] == "used before"


def test_latest_of_several_uses_decides() -> None:
    view = used_since_3(
        *history("a", found(), CHATS, facts.ModelUsed(role="general")),
        *history("b", found(), CHATS, facts.ModelUsed()),
        ("a", facts.ModelUsed(role="fast")),
        ("b", facts.ModelUsed(role="general")),
        ("a", facts.ModelUsed()),
    )

    assert order(view) == ["a", "b"]
    assert reasons(view, ModelRole.GENERAL) == {
        "a": "used before",
        "b": "used for the general role",
    }


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("role", list(ModelRole))
def test_uses_of_old_schemas_count_for_every_role(schema: int, role: ModelRole) -> None:
    view = RecommendationView()
    able = detected(
        "completion", "coding", "tools", "vision", "thinking", "embedding", parameters=1
    )
    result = [*history("a", found(), able), *history("b", found(), able)]
    result.append(("b", facts.ModelUsed(role="vision")))
    for position, (name, fact) in enumerate(result, start=1):
        stream = model_stream("local", name)
        view.apply(event(position, stream, fact, schema=schema))

    assert order(view, role) == ["b", "a"]
    assert reasons(view, role) == {"b": "used before", "a": "never used"}


@given(events=histories())
def test_first_is_the_first_of_the_order_in_any_history(
    events: list[RecordedEvent],
) -> None:
    view = RecommendationView()
    fold(view, events)

    for role in ModelRole:
        assert view.first(role) == next(iter(view.order(role)), None)
