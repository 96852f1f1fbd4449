"""HTML pages in place of answers, as reverse proxies and web programs send them."""

from __future__ import annotations

import re
from typing import Final

_TITLE: Final = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAG: Final = re.compile(r"<[^<>]*>?")


def is_page(body: bytes) -> bool:
    """Return whether a body is HTML or XML."""
    return body.lstrip()[:1] == b"<"


def page_text(text: str) -> str:
    """Return the title of a page, or else its words; other texts as they are."""
    if not text.lstrip().startswith("<"):
        return text
    import html  # noqa: PLC0415 - few servers send pages

    title = _TITLE.search(text)
    words = html.unescape(title[1] if title else _TAG.sub(" ", text))
    return " ".join(words.split()) or "an HTML page"
