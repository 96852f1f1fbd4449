"""A client of the pages of a service, without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

import httpx
from support.service_program import RunningService

MODEL = "llama3.2:3b"
"""A model of the sandbox server."""

HOSTILE = "<script>alert('\"&\u202e1')</script>"
"""Text that must not become markup on a page."""

SHOWN = HOSTILE.replace("\u202e", "\\u202e")
"""The same text as a page shows it, with invisible characters escaped."""

VOID_ELEMENTS = ("img", "link", "meta", "input", "br", "hr")
"""Elements without an end tag."""


class Page(HTMLParser):
    """A parsed page: its links and texts. Every element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "style"
        assert tag != "script" or str(attributes["src"]).startswith(
            "/static/live.js?v="
        )
        if tag == "a":
            self.links.append(str(attributes["href"]))
        if "id" in attributes:
            self.ids.append(str(attributes["id"]))
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.words)


class HtmlClient:
    """A client that reads pages and sends forms."""

    def __init__(self, address: str, token: str = "") -> None:
        headers = {"accept": "text/html"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.http = httpx.Client(
            base_url=address, headers=headers, timeout=20, trust_env=False
        )

    def page(self, path: str, status: int = 200) -> Page:
        """Open a page."""
        answer = self.http.get(path, follow_redirects=True)
        assert answer.status_code == status, answer.text
        return Page(answer.text)

    def proof(self) -> str:
        """Return the token that forms contain."""
        page = self.http.get("/node", follow_redirects=True).text
        found = re.search(r'name="proof" value="(\w+)"', page)
        assert found is not None
        return found[1]

    def send(self, path: str, status: int = 303, /, **form: str) -> httpx.Response:
        """Send a form."""
        answer = self.http.post(path, data={"proof": self.proof(), **form})
        assert answer.status_code == status, answer.text
        return answer


@contextmanager
def open_client(address: str, token: str = "") -> Iterator[HtmlClient]:
    """Open a client of a service while the block runs."""
    client = HtmlClient(address, token)
    with client.http:
        yield client


def event_types(herdbook: RunningService, name: str = MODEL) -> list[str]:
    """Return the types of a model's events, oldest first; none for a new model."""
    answer = herdbook.http.get(f"/v1/models/{name}/history?limit=1000")
    if answer.status_code == 404:
        return []
    entries = sorted(answer.json(), key=lambda entry: entry["position"])
    return [entry["type"] for entry in entries]


def settings_of(herdbook: RunningService, name: str = MODEL) -> dict[str, Any]:
    settings: dict[str, Any] = herdbook.get(f"/v1/models/{name}/configuration")[
        "settings"
    ]
    return settings


def version_of(herdbook: RunningService) -> str:
    """Return the present version of the settings, for a form."""
    return str(herdbook.get(f"/v1/models/{MODEL}/configuration")["version"])
