"""OLLAMA_HOST, read by Ollama's own rules."""

from __future__ import annotations

import itertools
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.errors import InvalidAddressError, InvalidConfigurationError
from herdbook.core.ollama.address import authorization, base_url, same_server


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("1.2.3.4:56789", "http://1.2.3.4:56789"),
        (":56789", "http://127.0.0.1:56789"),
        ("example.com", "http://example.com:11434"),
        ("example.com:56789", "http://example.com:56789"),
        ("example.com/path", "http://example.com:11434/path"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("http://1.2.3.4:56789", "http://1.2.3.4:56789"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:56789", "https://example.com:56789"),
        ("HTTPS://example.com", "https://example.com:443"),
        ("https://example.com/ollama/", "https://example.com:443/ollama"),
        ("https://example.com/a b", "https://example.com:443/a%20b"),
        ("ollama.com", "https://ollama.com:443"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:56789", "http://[::1]:56789"),
        ("[0001:002:003:0004::1]", "http://[1:2:3:4::1]:11434"),
        (' "1.2.3.4" ', "http://1.2.3.4:11434"),
        ("' 1.2.3.4 '", "http://1.2.3.4:11434"),
    ],
)
def test_addresses_mean_what_they_mean_to_ollama(setting: str, url: str) -> None:
    assert base_url(setting) == url


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("::", "http://[::1]:11434"),
        ("[::]:80", "http://[::1]:80"),
        ("http://0.0.0.0", "http://127.0.0.1:80"),
    ],
)
def test_every_interface_is_reached_over_the_loopback(setting: str, url: str) -> None:
    assert base_url(setting) == url


@pytest.mark.parametrize("port", ["66000", "-1", "http", "0", "1_1", "99999"])
def test_invalid_port_is_refused(port: str) -> None:
    with pytest.raises(InvalidAddressError, match="1 to 65535"):
        base_url(f"example.com:{port}")


def test_empty_port_is_the_default() -> None:
    assert base_url("example.com:") == "http://example.com:11434"


SAME = [
    ["", "localhost", "LOCALHOST:11434", "http://127.0.0.1:11434/", "[::1]", "0.0.0.0"],
    ["Example.com", "example.com:11434", "http://EXAMPLE.com:11434/", "example.com."],
    ["https://a.b/x", "https://a.b:443/x/"],
    ["http://a.b"],
    ["localhost:11435"],
]


def test_spellings_of_one_address_are_the_same_server() -> None:
    places = [(n, base_url(text)) for n, texts in enumerate(SAME) for text in texts]
    for (one, first), (other, second) in itertools.product(places, places):
        assert same_server(first, second) == (one == other), (first, second)


@pytest.mark.parametrize(
    "setting",
    [
        *("ftp://x", "unix:///run/x", "x:0", "a b", "a:b:c", "x?y", "-x"),
        *("ex!mple.com", "a..b", 64 * "a" + ".example"),
    ],
)
def test_addresses_that_cannot_be_connected_to_are_refused(setting: str) -> None:
    with pytest.raises(InvalidAddressError) as raised:
        base_url(setting)

    assert setting in str(raised.value)


@pytest.mark.parametrize(
    ("setting", "url", "pair"),
    [
        ("http://ann:s3cret@x:1", "http://x:1", "ann:s3cret"),
        ("ann:s3cret@x:1", "http://x:1", "ann:s3cret"),
        ("https://ann@x", "https://x:443", "ann:"),
        ("http://ann:p%40s%2Fs@x/o", "http://x:80/o", "ann:p@s/s"),
        ("http://ann:p@s/s@x", "http://x:80", "ann:p@s/s"),
    ],
)
def test_user_and_password_become_a_header(setting: str, url: str, pair: str) -> None:
    assert base_url(setting) == url
    header = f"Basic {b64encode(pair.encode()).decode()}"
    assert authorization(setting, "key123") == header


def test_api_key_is_a_bearer_token() -> None:
    assert authorization("x:1", " key123\n") == "Bearer key123"
    assert authorization("x:1", " ") is None
    assert authorization(None, None) is None


def test_api_key_with_invalid_characters_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidConfigurationError) as raised:
        authorization("x:1", "key\n123")

    assert "123" not in str(raised.value)


@pytest.mark.parametrize(
    "setting", ["ftp://ann:s3cret@x", "http://ann:s3cret@x:0", "ann:s3cret@a b"]
)
def test_invalid_address_does_not_repeat_the_password(setting: str) -> None:
    with pytest.raises(InvalidAddressError) as raised:
        base_url(setting)

    assert "s3cret" not in str(raised.value)


@given(st.text(max_size=30))
def test_any_text_is_a_url_or_refused(setting: str) -> None:
    try:
        url = base_url(setting)
    except InvalidAddressError:
        return

    assert base_url(url) == url
