"""Play the recordings of a real server against the sandbox, and compare.

What must be equal, and what may differ, stands in ``tests/fixtures/wire/README.md``.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.recordings.comparison import (
    AnswerReader,
    comparable_answer,
    comparable_recording,
)
from support.recordings.play import RECORDINGS, PlayedExchange, name_of, play, read

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Recordings that cannot be played, and why.
NOT_PLAYED: dict[str, str] = {}

#: Looks at ps (by number) at which the recorded server had not yet set the expiry.
STALE = {("keep-alive-default", 3)}

#: Requests that were asked at the same moment: which got which answer is chance.
BY_CHANCE = {"queue-full"}

#: Ends that were recorded this close together might have come the other way round.
CLOSE_S = 0.25


def expiries(body: Any, now: datetime) -> list[float]:
    """Return how far each expiry is from now, in seconds."""
    ends = [datetime.fromisoformat(one["expires_at"]) for one in body["models"]]
    return sorted((end - now).total_seconds() for end in ends)


def recorded_dates(recording: dict[str, Any]) -> Iterator[datetime]:
    """Yield the date of each request, computed from the answers."""
    asked = [one for one in recording["exchanges"] if "request" in one]
    began = None
    for exchange in asked:
        result = exchange["response"].get("json")
        if began is None and isinstance(result, dict) and "created_at" in result:
            created = datetime.fromisoformat(result["created_at"])
            began = created - timedelta(seconds=exchange["ended"])
    for exchange in asked:
        yield (began or datetime.now(UTC)) + timedelta(seconds=exchange["at"])


PLAYED = [path for path in RECORDINGS if name_of(path) not in NOT_PLAYED]


@pytest.mark.parametrize("path", PLAYED, ids=name_of)
async def test_sandbox_answers_like_the_recording(path: Path) -> None:
    name, recording = name_of(path), read(path)
    all_played = await play(name, recording)

    theirs, ours = AnswerReader(), AnswerReader()
    expected = [comparable_recording(theirs, played.exchange) for played in all_played]
    found = [comparable_answer(ours, played) for played in all_played]
    if name in BY_CHANCE:
        assert by_chance(found) == by_chance(expected)
        return
    for index, played in enumerate(all_played):
        asked = f"{played.exchange['request']} (exchange {index})"
        assert found[index] == expected[index], asked
        assert played.ended == who_ended(played.exchange), asked
        assert played.cut == (played.ended == "cut"), asked
    check_order(all_played)
    check_expiries(name, recording, all_played)


def test_few_recordings_are_skipped() -> None:
    assert len(NOT_PLAYED) <= 3
    assert len(PLAYED) == 62 - len(NOT_PLAYED)


def who_ended(exchange: dict[str, Any]) -> str:
    """Return how a recorded exchange ended, as the sandbox calls it."""
    if "broken" in exchange["response"]:
        return "cut"
    return "closed by client" if "closed_by" in exchange["response"] else "answered"


def check_order(all_played: list[PlayedExchange]) -> None:
    """Compare in which order overlapping requests ended."""
    for one, other in combinations(all_played, 2):
        apart = other.exchange["ended"] - one.exchange["ended"]
        if abs(apart) > CLOSE_S:
            first, last = (one, other) if apart > 0 else (other, one)
            assert first.until <= last.until, (first.exchange, last.exchange)


def check_expiries(
    name: str, recording: dict[str, Any], all_played: list[PlayedExchange]
) -> None:
    """Compare what ps says about how long runners stay."""
    pairs = zip(all_played, recorded_dates(recording), strict=True)
    for index, (played, their_now) in enumerate(pairs):
        request = played.exchange["request"]
        if (request["method"], request["path"]) != ("GET", "/api/ps"):
            continue
        if (name, index) not in STALE:
            theirs = expiries(played.exchange["response"]["json"], their_now)
            ours = expiries(played.json, played.date)
            assert ours == pytest.approx(theirs, abs=1.0), f"exchange {index}"


def by_chance(answers: list[Any]) -> list[Any]:
    """Count the answers by their status."""
    return sorted(Counter(answer[0] for answer in answers).items())
