"""Recorded answers of a real server are read completely, refusals by their kind."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeAlias

import msgspec
import pytest
from support.recordings.wire import (
    RecordedAnswer,
    recorded_answers,
    replaying_transport,
    scenarios,
)

from herdbook.core.errors import HerdbookError, PullCutError
from herdbook.core.ollama.client import OllamaClient
from herdbook.core.ollama.wire import (
    Answer,
    EmbedAnswer,
    GenerateAnswer,
    PullLine,
    RunnerEntry,
    ShowAnswer,
    TagEntry,
    VersionAnswer,
)
from herdbook.core.operations.pull_progress import PullTracker

URL = "http://127.0.0.1:11434"

Ask: TypeAlias = Callable[[OllamaClient], Coroutine[Any, Any, object]]

READ: dict[tuple[str, str], type[Answer]] = {
    ("GET", "/api/version"): VersionAnswer,
    ("GET", "/api/tags"): TagEntry,
    ("GET", "/api/ps"): RunnerEntry,
    ("POST", "/api/show"): ShowAnswer,
    ("POST", "/api/generate"): GenerateAnswer,
    ("POST", "/api/embed"): EmbedAnswer,
}

UNREAD = {
    "/api/tags": {"model", "modified_at", "remote_model"},
    "/api/ps": {"model", "details"},
    "/api/show": {
        *("tensors", "license", "system", "modified_at"),
    },
    "/api/generate": {  # mostly of generated text, which nobody asks for here
        *("model", "created_at", "response", "done_reason"),
        "context",
        "eval_count",
        "eval_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "total_duration",
    },
    "/api/embed": {
        "embeddings",
        "load_duration",
        "prompt_eval_count",
        "total_duration",
    },
}


def lost(read: object, said: object, path: str = "") -> Iterator[str]:
    """Yield the path of all that was said and is not, or not so, in what was read."""
    if isinstance(read, msgspec.Raw):
        read = msgspec.json.decode(read)
    if isinstance(read, Answer) and isinstance(said, dict):
        names = {
            field.encode_name: field.name for field in msgspec.structs.fields(read)
        }
        for key, value in said.items():
            if key in names:
                yield from lost(getattr(read, names[key]), value, f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(read, list) and isinstance(said, list):
        for index, (one, other) in enumerate(zip(read, said, strict=True)):
            yield from lost(one, other, f"{path}[{index}]")
    elif not isinstance(read, datetime) and read != said:
        yield f"{path}: {said!r} became {read!r}"


@pytest.mark.parametrize(("method", "path"), READ, ids=str)
def test_every_recorded_answer_is_read_without_loss(method: str, path: str) -> None:
    missing = set()
    for _, answer, _ in recorded_answers(method, path):
        if answer.status == 200 and not answer.lines:
            said = msgspec.json.decode(answer.body)
            for one in said.get("models", [said]) or []:
                read = msgspec.json.decode(
                    msgspec.json.encode(one), type=READ[method, path]
                )
                missing |= set(lost(read, one))

    assert missing == {f".{key}" for key in UNREAD.get(path, ())}


def test_every_recorded_line_of_a_pull_is_read_without_loss() -> None:
    lines = [
        line.json
        for _, answer, _ in recorded_answers("POST", "/api/pull")
        for line in answer.lines
        if "error" not in line.json
    ]

    assert len(lines) > 300
    for line in lines:
        assert not list(lost(msgspec.convert(line, PullLine), line))


def test_no_recording_is_missing() -> None:
    assert len(scenarios()) == 62


async def drain(client: OllamaClient) -> list[PullLine]:
    async with aclosing(client.pull("m")) as lines:
        return [line async for line in lines]


ASK: dict[tuple[str, str], Ask] = {
    ("GET", "/api/tags"): lambda client: client.tags(),
    ("POST", "/api/show"): lambda client: client.show("m"),
    ("POST", "/api/generate"): lambda client: client.load("m"),
    ("POST", "/api/embed"): lambda client: client.load("m", embedding=True),
    ("POST", "/api/copy"): lambda client: client.copy("m", "n"),
    ("POST", "/api/create"): lambda client: client.create("m", source="n"),
    ("DELETE", "/api/delete"): lambda client: client.delete("m"),
    ("POST", "/api/pull"): drain,
}

# A part of the server's message, and the code of the error. Messages that no request
# of Herdbook provokes, but that are recorded, end as the general failure of their kind.
SAID = {
    "not found": "model_not_found",
    "model name": "invalid_name",
    "model path": "invalid_name",
    '" is invalid': "invalid_name",
    "model is required": "invalid_name",
    "unexpected EOF": "model_damaged",
    "ollama cloud is disabled": "refused",
    "does not support": "capability_missing",
    "server busy": "server_busy",
    "time: ": "invalid_configuration",
    "Unsupported type": "invalid_configuration",
    "json: ": "invalid_configuration",
    "must be of type": "invalid_configuration",
    "neither 'from'": "invalid_configuration",
    "failed to allocate": "out_of_memory",
    "exit status 1": "process_died",
    "timed out waiting": "load_stalled",
    "exceeds": "load_failed",
    "invalid input type": "load_failed",
    "invalid format": "load_failed",
    "manifest: file does not exist": "not_in_registry",
    "realm host": "authentication",
    "unsupported protocol": "authentication",
    "403: denied": "authentication",
    "412: ": "server_too_old",
    "429: ": "rate_limit",
    "500: internal": "registry_failed",
    "503: ": "registry_failed",
    "max retries": "registry_failed",
    "dial tcp": "registry_unreachable",
    '1b": EOF': "registry_without_tls",
    "context canceled": "pull_cancelled",
    "no space left": "disk_full",
    "digest mismatch": "digest_mismatch",
}


def refusals() -> Iterator[tuple[str, str, RecordedAnswer]]:
    """Yield every refusal that a request of Herdbook can get, each text once."""
    seen = set()
    for method, path in ASK:
        for _, answer, asked in recorded_answers(method, path):
            said = answer.error
            streamed = bool(answer.lines) and path == "/api/pull"
            unlike_ours = not isinstance(asked.json, dict) and method != "GET"
            if (answer.status == 200 and not (streamed and said)) or unlike_ours:
                continue
            if (method, path, said) not in seen:
                seen.add((method, path, said))
                yield method, path, answer


@pytest.mark.parametrize(("method", "path", "answer"), list(refusals()))
async def test_every_recorded_refusal_becomes_its_own_error(
    method: str, path: str, answer: RecordedAnswer
) -> None:
    said = answer.error or ""
    word = next((word for part, word in SAID.items() if part in said), "refused")

    async with OllamaClient(URL, transport=replaying_transport(answer)) as client:
        with pytest.raises(HerdbookError) as raised:
            await ASK[method, path](client)

    error = raised.value
    assert getattr(error, "kind", error.code) == word
    assert getattr(error, "raw", "") == said or said in str(error)


def test_every_text_of_the_table_has_a_recording() -> None:
    texts = [answer.error or "" for _, _, answer in refusals()]

    assert [part for part in SAID if not any(part in text for text in texts)] == []


def pulls() -> Iterator[RecordedAnswer]:
    """Yield every recorded pull that began, but for those that say what failed."""
    for _, answer, _ in recorded_answers("POST", "/api/pull"):
        if answer.status == 200 and answer.lines and answer.error is None:
            yield answer


@pytest.mark.parametrize("answer", list(pulls()))
async def test_every_recorded_pull_ends_with_success_or_a_cut(
    answer: RecordedAnswer,
) -> None:
    succeeded = answer.lines[-1].json == {"status": "success"}

    async with OllamaClient(URL, transport=replaying_transport(answer)) as client:
        if succeeded:
            assert len(await drain(client)) == len(answer.lines)
        else:
            with pytest.raises(PullCutError):
                await drain(client)


@pytest.mark.parametrize("answer", list(pulls()))
def test_progress_of_every_recorded_pull_never_goes_back(
    answer: RecordedAnswer,
) -> None:
    tracker = PullTracker()
    result = []

    for line in answer.lines:
        tracker.apply(msgspec.convert(line.json, PullLine), line.at)
        result.append(tracker.progress(line.at))

    for before, after in pairwise(result):
        assert before.completed_bytes <= after.completed_bytes
        assert (before.total_bytes or 0) <= (after.total_bytes or 0)
    if result[-1].status == "success":
        assert result[-1].completed_bytes == (result[-1].total_bytes or 0)


def test_counter_that_went_back_is_reported_as_fetched_twice() -> None:
    (_, answer, _), *_ = (
        found
        for found in recorded_answers("POST", "/api/pull")
        if "backwards" in found[0]
    )
    tracker = PullTracker()

    for line in answer.lines:
        tracker.apply(msgspec.convert(line.json, PullLine), line.at)

    progress = tracker.progress(answer.lines[-1].at)
    assert progress.refetched_bytes == 63_000_000
    assert progress.fetched_bytes == 328_381_554
    assert progress.total_bytes == 269_881_554
