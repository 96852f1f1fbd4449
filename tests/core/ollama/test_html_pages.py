"""HTML pages in place of answers."""

from __future__ import annotations

import pytest

from herdbook.core.errors import BadAnswerError, RefusedError
from herdbook.core.ollama.failures import Request
from herdbook.core.ollama.html_pages import page_text
from herdbook.core.ollama.requests import Call, read, refusal
from herdbook.core.ollama.wire import VersionAnswer

PAGE = b"<!DOCTYPE html><html><head><title>502 Bad &amp; Gateway</title></head><body>x"
CALL = Call("GET", "/api/version", request=Request.READ)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (PAGE.decode(), "502 Bad & Gateway"),
        (
            "<html>401\n <b>Sign in</b> first</html>",
            "401 Sign in first",
        ),
        ("<html></html>", "an HTML page"),
        ("<html><body", "an HTML page"),
        ("404 page not found", "404 page not found"),
    ],
)
def test_page_is_shown_as_its_title_or_its_words(page: str, text: str) -> None:
    assert page_text(page) == text


def test_page_of_a_proxy_is_named_and_not_printed() -> None:
    refused = refusal(CALL, 502, PAGE, node="Ollama")
    assert isinstance(refused, BadAnswerError)
    assert refused.raw == "HTTP 502 Bad & Gateway"
    asked = refusal(CALL, 401, b"<html>401</html>", node="Ollama")
    assert isinstance(asked, RefusedError)
    assert asked.state == "requires authentication (HTTP 401)"
    title = b"<title>401 Authorization Required</title>"
    titled = refusal(CALL, 401, b"<html>" + title + b"</html>", node="Ollama")
    assert "(HTTP 401): Authorization Required" in str(titled)
    with pytest.raises(BadAnswerError, match="an HTML page, not JSON"):
        read(PAGE, VersionAnswer, node="Ollama")
