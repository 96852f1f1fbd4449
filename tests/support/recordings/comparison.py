"""Normalize recorded answers and answers of the sandbox, to compare them.

``fixtures/wire/README.md`` lists the values that may differ: they are reduced to their
type or to the part that matters. All others must be equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from support.recordings.play import PlayedExchange

DIGEST = re.compile(r"[0-9a-f]{64}")
SHORT = re.compile(r"pulling [0-9a-f]{12}$")
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
#: Values for which only the type must be equal.
LOOSE = {
    "id", "created", "context", "prompt_eval_count", "eval_count", "total_duration",
    "load_duration", "prompt_eval_duration", "eval_duration", "size_vram", "response",
    "content", "embeddings", "embedding", "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "prompt_tokens",
    "completion_tokens", "total_tokens", "version",
}  # fmt: skip


class AnswerReader:
    """Normalize answers: only the parts that must be equal, with keys in order."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._loose = LOOSE

    def select_path(self, path: str) -> None:
        """Select what may differ in answers of a path: sizes in memory, not on disk."""
        self._loose = LOOSE | {"size"} if path == "/api/ps" else LOOSE

    def answer(self, status: Any, headers: Any, body: Any, lines: Any) -> Any:
        shown = {key: headers.get(key) for key in ("content-type", "allow")}
        shown["has length"] = "content-length" in headers
        if lines is not None:
            return (
                status,
                shown,
                [self.value("", one) for one in self._condensed(lines)],
            )
        return status, shown, self.value("", body)

    def value(self, key: str, value: Any) -> Any:
        match value:
            case dict():
                return [(name, self.value(name, value[name])) for name in value]
            case list() if key == "models":
                ordered = sorted(value, key=self._model_order)
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

    def _model_order(self, one: dict[str, Any]) -> tuple[str, str]:
        return one["name"], self._digests.get(one["digest"], "new")

    def _condensed(self, lines: list[Any]) -> Iterator[Any]:
        """Keep one line per layer, and one for the words of an answer."""
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


def comparable_recording(reader: AnswerReader, exchange: dict[str, Any]) -> Any:
    """Normalize a recorded answer."""
    response = exchange["response"]
    lines = response.get("lines")
    body = response.get("json", response.get("text"))
    parsed = [one["json"] for one in lines] if lines is not None else None
    reader.select_path(exchange["request"]["path"])
    return reader.answer(
        response.get("status"), response.get("headers", {}), body or None, parsed
    )


def comparable_answer(reader: AnswerReader, played: PlayedExchange) -> Any:
    """Normalize an answer of the sandbox."""
    kind = played.headers.get("content-type", "")
    reader.select_path(played.exchange["request"]["path"])
    if kind == "application/x-ndjson":
        return reader.answer(played.status, played.headers, None, played.lines)
    body = played.json if played.raw and "json" in kind else played.raw.decode()
    return reader.answer(played.status, played.headers, body or None, None)
