"""Refusals: error answers with the status and text of the real server.

Invariant: every refusal of the sandbox server is a ``Refusal``; any other exception
is a mistake of the sandbox and shows as one.
"""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - an answer of the sandbox server, not an error
    """An answer that refuses.

    Attributes:
        status: the HTTP status.
        text: what stands under ``error``.
        plain: whether the content type names no charset.
    """

    def __init__(self, status: int, text: str, *, plain: bool = False) -> None:
        self.status = status
        self.text = text
        self.plain = plain
        super().__init__(status, text)


class Malformed(Refusal):
    """A refusal of a request that cannot be read, before any model is looked for.

    OpenAI's and Anthropic's forms send it with another content type than those of
    models.
    """


class Dropped(Exception):  # noqa: N818 - the end of a connection, not an error
    """The connection is cut without an answer."""
