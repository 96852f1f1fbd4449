"""Failures that no recording has: texts from the source code and from users."""

from __future__ import annotations

import pytest

from herdbook.core.errors import BadAnswerError, CapabilityMissingError, OllamaError
from herdbook.core.ollama.failures import Request, failure

LOADS = {
    "llama-server reported out-of-memory during startup: x": "out_of_memory",
    "cudaMalloc failed: out of memory": "out_of_memory",
    "ErrorOutOfDeviceMemory": "out_of_memory",
    "unable to load full model on GPU": "out_of_memory",
    "model requires more system memory (5.0 GiB) than is available (3.9 GiB)": (
        "out_of_memory"
    ),
    "llama runner process has terminated: exit status 2": "process_died",
    "llama-server process no longer running: -1": "process_died",
    "timed out waiting for llama runner to start - ": "load_stalled",
    "x: this model may be incompatible with your version of Ollama.": "incompatible",
    "open /m/blobs/sha256-0: no such file or directory": "model_damaged",
    "llama-server binary not found (checked: /x)": "load_failed",
}

PULLS = {
    "pull model manifest: unauthorized: access denied": "authentication",
    'pull model manifest: 401: {"error":"Invalid username"}': "authentication",
    'pull model manifest: Get "https://r/v2/": dial tcp: lookup r: no such host': (
        "registry_unreachable"
    ),
    'pull model manifest: Get "https://r": context deadline exceeded': (
        "registry_unreachable"
    ),
    'Get "https://r": net/http: TLS handshake timeout': "registry_unreachable",
    "tls: failed to verify certificate: x509: unknown": "registry_unreachable",
    "max retries exceeded: unexpected EOF": "registry_failed",
    "max retries exceeded: write /m/x: no space left on device": "disk_full",
    "write C:\\x: There is not enough space on the disk.": "disk_full",
    "this model requires MLX support": "pull_refused",
}


@pytest.mark.parametrize("message", LOADS)
def test_a_failed_load_is_shown_apart(message: str) -> None:
    error = failure(Request.LOAD, "m", status=500, message=message)

    assert isinstance(error, OllamaError)
    assert (error.kind, error.raw) == (LOADS[message], message)


@pytest.mark.parametrize("message", PULLS)
def test_a_failed_pull_is_shown_apart(message: str) -> None:
    error = failure(Request.PULL, "m", status=200, message=message)

    assert isinstance(error, OllamaError)
    assert (error.kind, error.raw) == (PULLS[message], message)


@pytest.mark.parametrize("request_", [Request.READ, Request.CHANGE])
def test_unknown_text_is_shown_unchanged(request_: Request) -> None:
    error = failure(request_, "m", status=500, message="something new")

    assert error.code == "server_failed"
    assert "something new" in str(error)


def test_image_generation_model_is_not_loaded() -> None:
    message = "image generation models are not currently supported"

    error = failure(Request.LOAD, "m", status=400, message=message)

    assert isinstance(error, CapabilityMissingError)
    assert error.capability == "generate"


def test_the_missing_capability_is_named() -> None:
    error = failure(Request.LOAD, "m", status=400, message='"m" does not support tools')

    assert isinstance(error, CapabilityMissingError)
    assert error.capability == "tools"


@pytest.mark.parametrize("status", [301, 400, 404, 405, 418, 500])
def test_body_that_is_not_from_ollama_is_a_bad_answer(status: int) -> None:
    error = failure(
        Request.READ, "Ollama at x", status=status, message=None, body="<html>proxy"
    )

    assert isinstance(error, BadAnswerError)
    assert f"HTTP {status} <html>proxy" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (407, "refused", "a forward proxy is not supported"),
        (429, "server_busy", "Try again later"),
        (502, "bad_answer", "Check that Ollama is running behind it"),
        (503, "bad_answer", "Check that Ollama is running behind it"),
        (504, "bad_answer", "Check that Ollama is running behind it"),
    ],
)
@pytest.mark.parametrize("body", ["", "Busy"])
def test_status_of_a_proxy_has_its_own_remedy(
    status: int, code: str, words: str, body: str
) -> None:
    error = failure(Request.READ, "Ollama at x", status=status, message=None, body=body)

    assert error.code == code
    assert f"HTTP {status}" in str(error)
    assert body in str(error)
    assert words in str(error)


def test_proxy_that_requires_a_password_is_a_refusal() -> None:
    error = failure(Request.READ, "Ollama at x", status=401, message=None, body="login")

    assert (error.code, "login" in str(error)) == ("refused", True)


@pytest.mark.parametrize(
    "message",
    [
        'pull model manifest: Get "https://reg:5000/v2/m/manifests/latest": EOF',
        "http: server gave HTTP response to HTTPS client",
        "tls: first record does not look like a TLS handshake",
    ],
)
def test_registry_without_tls_requires_insecure(message: str) -> None:
    error = failure(Request.PULL, "reg:5000/a/m:1", status=200, message=message)

    assert isinstance(error, OllamaError)
    assert error.kind == "registry_without_tls"
    assert "(API: insecure, command line: --insecure)" in error.remedy
