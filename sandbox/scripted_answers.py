"""Answers that no Ollama gives: a proxy's nonsense, a silence, an endless stream.

Invariant: a scripted answer takes the place of the true one for as many requests as
it was asked to, and leaves the world untouched.
"""

from __future__ import annotations

import base64

import msgspec


def _html() -> dict[str, str]:
    return {"content-type": "text/html"}


class Nonsense(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to answer in place of the truth.

    Attributes:
        path: the path that it is for; every path where it is empty.
        times: for how many requests; 0 for all.
        status: the HTTP status.
        headers: its headers.
        body: its body, as text.
        body_base64: its body, where it is no text.
        after_lines: how many lines of the true stream come before it; the status
            and the headers are the true ones then.
        repeat: whether the body comes again and again without end.
        delay_s: seconds of the world's clock to wait first.
        truthful: whether the true answer comes after the delay.
        hang: whether nothing comes after that, and the connection stays open.
        cut: whether the connection is cut after that.
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
        """The bytes of the body."""
        return base64.b64decode(self.body_base64) or self.body.encode()


class Answers:
    """The scripted answers that are still to be given."""

    def __init__(self) -> None:
        self._left: list[tuple[Nonsense, int]] = []

    def script(self, nonsense: Nonsense) -> None:
        """Add an answer behind those that are there."""
        self._left.append((nonsense, nonsense.times))

    def clear(self) -> None:
        """Tell the truth again."""
        self._left.clear()

    def take(self, path: str) -> Nonsense | None:
        """Take the first answer for a path, None where the truth shall be told."""
        for index, (nonsense, times) in enumerate(self._left):
            if nonsense.path in {"", path}:
                if times == 1:
                    del self._left[index]
                elif times:
                    self._left[index] = (nonsense, times - 1)
                return nonsense
        return None
