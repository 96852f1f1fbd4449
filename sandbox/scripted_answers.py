"""Scripted answers: a proxy's error page, a hang, an endless stream.

Invariant: a scripted answer replaces the real one for the given number of requests,
and does not change the world.
"""

from __future__ import annotations

import base64

import msgspec


def _html() -> dict[str, str]:
    return {"content-type": "text/html"}


class ScriptedAnswer(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A scripted answer.

    Attributes:
        path: Path to answer; empty for every path.
        times: Number of requests; 0 for all.
        status: HTTP status.
        headers: Headers.
        body: Body, as text.
        body_base64: Body, if it is binary.
        after_lines: Lines of the real stream to send first; the status and the
            headers are the real ones then.
        repeat: Whether to repeat the body without end.
        delay_s: Seconds of the world's clock to wait first.
        truthful: Whether to send the real answer after the delay.
        hang: Whether to leave the connection open afterwards.
        cut: Whether to cut the connection afterwards.
    """

    path: str = ""
    times: int = 1
    status: int = 502
    headers: dict[str, str] = msgspec.field(default_factory=_html)
    body: str = ""
    body_base64: str = ""
    after_lines: int = 0
    repeat: bool = False
    delay_s: float = 0.0
    truthful: bool = False
    hang: bool = False
    cut: bool = False

    @property
    def raw(self) -> bytes:
        """Body as bytes."""
        return base64.b64decode(self.body_base64) or self.body.encode()


class Answers:
    """The scripted answers that remain."""

    def __init__(self) -> None:
        self._left: list[tuple[ScriptedAnswer, int]] = []

    def script(self, scripted: ScriptedAnswer) -> None:
        """Append an answer."""
        self._left.append((scripted, scripted.times))

    def clear(self) -> None:
        """Remove all scripted answers."""
        self._left.clear()

    def take(self, path: str) -> ScriptedAnswer | None:
        """Take the first answer for a path; None for the real answer."""
        for index, (scripted, times) in enumerate(self._left):
            if scripted.path in {"", path}:
                if times == 1:
                    del self._left[index]
                elif times:
                    self._left[index] = (scripted, times - 1)
                return scripted
        return None
