"""Play the recordings of a real server against the sandbox, and compare.

What must be equal, and what may differ, stands in ``tests/fixtures/wire/README.md``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from herdbook.sandbox import (
    CURRENT,
    OLDER,
    Settings,
    World,
    did,
    let_others_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
RECORDINGS = sorted(WIRE.glob("*.json")) + sorted(WIRE.glob("older/*.json"))

#: Circumstances that a recording does not tell as a step.
CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "pull-again-at-once": {"cancel_lag_s": 1.0},
    "cloud-stub": {
        "registry": {
            "unreachable": "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: "
            "connection refused"
        }
    },
    # The older server was slower to let a runner go, so that ps still showed it.
    "older/load-unload": {"unload_lag_s": 0.02},
    "older/unload-busy": {"unload_lag_s": 0.2},
    "older/keep-alive": {"unload_lag_s": 0.02},
}

#: Settings of the machine that was recorded, where they show.
SETTINGS: dict[str, dict[str, Any]] = {
    "older/unload-busy": {"token_s": 0.09},
}

#: Looks at ps (by number) at which the recorded server had not yet set the expiry.
STALE = {("keep-alive-default", 3)}

#: Requests that were asked at the same moment: which got which answer is chance.
BY_CHANCE = {"queue-full"}

STEP_S = 0.05
LONGEST_S = 200.0
DIGEST = re.compile(r"[0-9a-f]{64}")
SHORT = re.compile(r"pulling [0-9a-f]{12}$")
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
#: Values of which only the type has to be equal.
LOOSE = {
    "id", "created", "context", "prompt_eval_count", "eval_count", "total_duration",
    "load_duration", "prompt_eval_duration", "eval_duration", "size_vram", "response",
    "content", "embeddings", "embedding", "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "prompt_tokens",
    "completion_tokens", "total_tokens",
}  # fmt: skip


class Play:
    """A recording being played: the world, the time, and what is under way."""

    def __init__(self, name: str, recording: dict[str, Any], begin: Any) -> None:
        given = recording["given"]
        profile = OLDER if name.startswith("older") else CURRENT
        self.world = World(
            models=given["models"],
            settings=Settings.from_environment(
                given["env"],
                disk_bytes=given.get("disk_bytes"),
                **SETTINGS.get(name, {}),
            ),
            profile=msgspec.structs.replace(profile, version="0.0.0"),
        )
        did(self.world, CIRCUMSTANCES.get(name, {}))
        self.begin = begin
        self.late = 0.0
        self.talks: list[tuple[dict[str, Any], Any]] = []
        self.dates: list[datetime] = []

    async def move_to(self, at: float) -> None:
        """Move the clock to a moment of the recording, a little at a time."""
        while self.world.clock.now() < at + self.late:
            left = at + self.late - self.world.clock.now()
            self.world.clock.advance(min(STEP_S, left))
            await let_others_run(6)

    async def finish(self, at: float) -> None:
        """See the end of what had ended by then, even if it takes longer here."""
        began = self.world.clock.now()
        for exchange, talk in self.talks:
            if "broken" in exchange["response"]:
                continue  # that ends when something is done to the server
            while exchange["ended"] <= at and not talk.task.done():
                self.world.clock.advance(STEP_S)
                await let_others_run(6)
                waited = self.world.clock.now() - began
                assert waited < LONGEST_S, f"no end of {exchange['request']}"
        self.late += self.world.clock.now() - began

    async def start(self, exchange: dict[str, Any]) -> None:
        talk = self.begin(self.world, exchange["request"])
        self.talks.append((exchange, talk))
        self.dates.append(self.world.clock.wall(self.world.clock.now()))
        await let_others_run()


def read(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def steps(recording: dict[str, Any]) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Order what happens: beginnings, closings by the client, things done."""
    for exchange in recording["exchanges"]:
        if "did" in exchange:
            yield exchange["at"], "do", exchange
        elif "request" in exchange:
            yield exchange["at"], "start", exchange
            if "closed_by" in exchange["response"]:
                yield exchange["ended"], "close", exchange


async def play(name: str, recording: dict[str, Any], begin: Any) -> Play:
    """Do all that was done, in its order."""
    run = Play(name, recording, begin)
    for at, kind, exchange in sorted(steps(recording), key=lambda step: step[0]):
        await run.move_to(at)
        if kind == "close":
            talk = next(talk for one, talk in run.talks if one is exchange)
            await talk.close()
            continue
        await run.finish(at)
        if kind == "do":
            did(run.world, exchange["did"])
            await let_others_run()
        else:
            await run.start(exchange)
    await run.finish(float("inf"))
    return run


class Reader:
    """Bring answers into a form in which only what matters is left, keys in order."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._loose = LOOSE

    def look_at(self, path: str) -> None:
        """Sizes in memory may differ; sizes on disk may not."""
        self._loose = LOOSE | {"size"} if path == "/api/ps" else LOOSE

    def answer(self, status: Any, headers: Any, body: Any, lines: Any) -> Any:
        told = {key: headers.get(key) for key in ("content-type", "allow")}
        told["length told"] = "content-length" in headers
        if lines is not None:
            return status, told, [self.value("", one) for one in self._squeezed(lines)]
        return status, told, self.value("", body)

    def value(self, key: str, value: Any) -> Any:
        match value:
            case dict():
                return [(name, self.value(name, value[name])) for name in value]
            case list() if key == "models":
                ordered = sorted(value, key=self._place)
                return [self.value("", one) for one in ordered]
            case _ if key in self._loose:
                return type(value).__name__
            case list():
                return [self.value("", one) for one in value]
            case str():
                return self.text(key, value)
            case _:
                return value

    def text(self, key: str, text: str) -> str:
        if key in {"created_at", "modified_at", "expires_at"}:
            return "date" if DATE.fullmatch(text) else text
        if key in {"parameters", "modelfile"}:
            text = "\n".join(sorted(text.splitlines()))
        if key == "done_reason" and text in {"stop", "length"}:
            return "stop or length"
        if key == "error":
            text = re.sub(r"got sha256:[0-9a-f]{64}", "got another", text)
            text = re.sub(r"nonce=[^&]*&(.*)ts=\d+", r"nonce&\1ts", text)
        return DIGEST.sub(lambda found: self.number(found[0]), text)

    def number(self, digest: str) -> str:
        return self._digests.setdefault(digest, f"digest {len(self._digests)}")

    def _place(self, one: dict[str, Any]) -> tuple[str, str]:
        return one["name"], self._digests.get(one["digest"], "new")

    def _squeezed(self, lines: list[Any]) -> Iterator[Any]:
        """Leave one line of each layer, and one of each word of an answer."""
        progress: dict[str, list[int]] = {}
        for one in lines:
            if "digest" in one:
                counts = progress.setdefault(one["digest"], [])
                counts.append(one.get("completed", 0))
                assert SHORT.match(one["status"])
        seen: set[str] = set()
        for one in lines:
            mark = one.get("digest") or ("word" if one.get("done") is False else "")
            if (mark and mark in seen) or one.get("total", 1000) < 1000:
                continue
            seen.add(mark)
            yield _shape(one, progress)


def _shape(one: dict[str, Any], progress: dict[str, list[int]]) -> Any:
    if "digest" not in one:
        return one
    counts = progress[one["digest"]]
    return {
        "digest": one["digest"],
        "total": one["total"],
        "resumed": counts[0] > one["total"] / 3,
        "went back": any(b < a for a, b in pairwise(counts)),
        "to nothing": 0 in counts[1:] and any(counts),
        "moved": any(counts),
    }


def recorded(reader: Reader, exchange: dict[str, Any]) -> Any:
    response = exchange["response"]
    lines = response.get("lines")
    body = response.get("json", response.get("text"))
    told = [one["json"] for one in lines] if lines is not None else None
    reader.look_at(exchange["request"]["path"])
    return reader.answer(
        response.get("status"), response.get("headers", {}), body or None, told
    )


def answered(reader: Reader, exchange: dict[str, Any], talk: Any) -> Any:
    kind = talk.headers.get("content-type", "")
    reader.look_at(exchange["request"]["path"])
    if kind == "application/x-ndjson":
        return reader.answer(talk.status, talk.headers, None, talk.lines)
    body = talk.json if talk.raw and "json" in kind else talk.raw.decode()
    return reader.answer(talk.status, talk.headers, body or None, None)


def expiries(body: Any, now: datetime) -> list[float]:
    """Tell how far each expiry is from now, in seconds."""
    ends = [datetime.fromisoformat(one["expires_at"]) for one in body["models"]]
    return sorted((end - now).total_seconds() for end in ends)


def recorded_dates(recording: dict[str, Any]) -> Iterator[datetime]:
    """Tell the date at which each request was asked, from what answers tell."""
    asked = [one for one in recording["exchanges"] if "request" in one]
    began = None
    for exchange in asked:
        told = exchange["response"].get("json")
        if began is None and isinstance(told, dict) and "created_at" in told:
            created = datetime.fromisoformat(told["created_at"])
            began = created - timedelta(seconds=exchange["ended"])
    for exchange in asked:
        yield (began or datetime.now(UTC)) + timedelta(seconds=exchange["at"])


@pytest.mark.parametrize(
    "path", RECORDINGS, ids=lambda path: str(path.relative_to(WIRE).with_suffix(""))
)
async def test_recording_is_answered_alike(
    path: Path, converse: Callable[..., Any]
) -> None:
    name = str(path.relative_to(WIRE).with_suffix(""))
    recording = read(path)
    run = await play(name, recording, converse)
    theirs, ours = Reader(), Reader()
    expected, found = [], []
    for exchange, talk in run.talks:
        expected.append(recorded(theirs, exchange))
        found.append(answered(ours, exchange, talk))
        assert talk.cut == ("broken" in exchange["response"]), exchange["request"]
    if name in BY_CHANCE:
        expected, found = _by_chance(expected), _by_chance(found)
    else:
        check_expiries(name, recording, run)
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        asked = run.talks[index][0]["request"]
        assert other == one, f"{asked} (exchange {index})"


def check_expiries(name: str, recording: dict[str, Any], run: Play) -> None:
    """Compare what ps says about how long runners stay."""
    looks = zip(run.talks, recorded_dates(recording), run.dates, strict=True)
    for index, ((exchange, talk), their_now, our_now) in enumerate(looks):
        if exchange["request"]["path"] != "/api/ps" or (name, index) in STALE:
            continue
        if exchange["request"]["method"] == "GET":
            theirs = expiries(exchange["response"]["json"], their_now)
            ours = expiries(talk.json, our_now)
            assert ours == pytest.approx(theirs, abs=1.0), f"exchange {index}"


def _by_chance(answers: list[Any]) -> list[Any]:
    return sorted(Counter(answer[0] for answer in answers).items())
