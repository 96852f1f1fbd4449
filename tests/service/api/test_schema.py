"""The API against its OpenAPI document, tested with schemathesis."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support.service_program import RunningService, ServiceProcess
from support.web.html_client import MODEL

RULES_BEYOND_SCHEMAS = (
    # Invalid names, times and roles are refused, which a schema cannot express.
    "positive_data_acceptance",
    # A missing If-Match gets 428; schemathesis expects 400.
    "missing_required_header",
    # A deleted model and a cancelled operation can still be read: they have a history.
    "use_after_free",
)


LISTED = "To list the paths: GET /v1/openapi.json"


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_every_response_is_in_the_document(
    program: ServiceProcess, tmp_path: Path
) -> None:
    program.operate("load", "gemma3:4b")

    # Nodes that are added at random do not answer, so they are tried afterwards.
    cases = requests(program, tmp_path, "--exclude-path-regex", "/v1/nodes", "8")

    assert cases > 400
    assert "unexpected_error" not in program.errors.read_text()
    assert program.get("/readyz")["status"] == "ok"
    assert requests(program, tmp_path, "--include-path-regex", "/v1/nodes", "4") > 50
    assert "unexpected_error" not in program.errors.read_text()


def requests(
    program: ServiceProcess, folder: Path, choice: str, paths: str, examples: str
) -> int:
    """Send requests to some paths; return their number if all answers are right."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run"),
        f"{program.address}/v1/openapi.json",
        *(choice, paths),
        *("--exclude-path", "/v1/events/stream"),  # endless; see test_stream
        *("--exclude-checks", ",".join(RULES_BEYOND_SCHEMAS)),
        *("--max-examples", examples, "--generation-deterministic"),
    ]
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-1000:]
    cases = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert cases is not None, ran.stdout[-2000:]
    return int(cases[1])


def test_document_has_exactly_the_existing_paths(herdbook: RunningService) -> None:
    document = herdbook.get("/v1/openapi.json")

    result = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert result == {
        "GET /v1/models",
        "GET /v1/models/{name}",
        "DELETE /v1/models/{name}",
        "GET /v1/models/{name}/history",
        "GET /v1/models/{name}/why",
        "GET /v1/models/{name}/statistics",
        "GET /v1/models/{name}/cost",
        "GET /v1/models/{name}/configuration",
        "PUT /v1/models/{name}/configuration",
        "POST /v1/models/{name}/uses",
        "GET /v1/operations",
        "POST /v1/operations",
        "GET /v1/operations/{operation_id}",
        "DELETE /v1/operations/{operation_id}",
        "GET /v1/free",
        "POST /v1/free",
        "GET /v1/ps",
        "POST /v1/anchors",
        "GET /v1/tokens",
        "POST /v1/tokens",
        "DELETE /v1/tokens/{name}",
        "GET /v1/usage",
        "GET /v1/roles",
        "GET /v1/roles/{role}",
        "GET /v1/roles/{role}/suggestions",
        "GET /v1/events",
        "GET /v1/events/{position}",
        "GET /v1/events/stream",
        "GET /v1/status",
        "GET /v1/diff",
        "GET /v1/log/head",
        "GET /v1/nodes",
        "POST /v1/nodes",
        "GET /v1/nodes/{name}",
        "PUT /v1/nodes/{name}",
        "DELETE /v1/nodes/{name}",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    }


def test_everything_in_the_document_has_a_description(herdbook: RunningService) -> None:
    document = herdbook.get("/v1/openapi.json")

    for name, shape in document["components"]["schemas"].items():
        assert shape["description"], name
        assert "Attributes:" not in shape["description"]
    for methods in document["paths"].values():
        for result in methods.values():
            assert result["description"].strip().endswith("."), result["operationId"]
            for parameter in result.get("parameters", ()):
                assert parameter["description"].endswith("."), parameter["name"]


def test_reference_page_shows_every_path(herdbook: RunningService) -> None:
    page = httpx.get(f"{herdbook.address}/api", trust_env=False).text

    for path in herdbook.get("/v1/openapi.json")["paths"]:
        assert path in page
    assert "Sizes are in bytes" in page


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/v1/models/a:b", "DELETE, GET, OPTIONS"),
        ("OPTIONS", "/v1/operations", "GET, OPTIONS, POST"),
        ("PATCH", "/v1/models", "GET"),
    ],
)
def test_methods_of_a_path(
    herdbook: RunningService, method: str, path: str, allowed: str
) -> None:
    answer = herdbook.http.request(method, path)

    assert answer.status_code == (204 if method == "OPTIONS" else 405)
    assert set(allowed.split(", ")) <= set(answer.headers["allow"].split(", "))
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        (
            "GET",
            "/v1/nothing",
            404,
            f"path '/v1/nothing' does not exist. {LISTED}",
        ),
        (
            "POST",
            "/v1/nothing",
            404,
            f"path '/v1/nothing' does not exist. {LISTED}",
        ),
        (
            "GET",
            "/v1/openapi.json/x",
            404,
            f"path '/v1/openapi.json/x' does not exist. {LISTED}",
        ),
        ("GET", "/nothing", 404, "path '/nothing' does not exist"),
        (
            "DELETE",
            "/v1/status",
            405,
            "method DELETE is not supported by '/v1/status'. Supported: GET, OPTIONS",
        ),
    ],
)
def test_unknown_paths_and_methods_get_a_problem(
    herdbook: RunningService, method: str, path: str, status: int, detail: str
) -> None:
    answer = herdbook.http.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == detail


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("GET", "/v1/models?limit=x", None, "parameter 'limit' must be a whole number"),
        ("GET", "/v1/diff", None, "query parameter 'from' is missing"),
        (
            "GET",
            "/v1/operations?state=runing",
            None,
            "parameter 'state' cannot be 'runing'. Did you mean 'running'? Values: ",
        ),
        ("POST", "/v1/operations", {}, "field 'kind' is missing"),
        (
            "POST",
            "/v1/operations",
            {"kind": "pul"},
            "field 'kind' cannot be 'pul'. Did you mean 'pull'? Values: pull, ",
        ),
        (
            "POST",
            "/v1/operations",
            {"kind": "pull", "modell": "a"},
            "field 'modell' is unknown. Did you mean 'model'? Fields: ",
        ),
        (
            "POST",
            f"/v1/models/{MODEL}/uses",
            {"role": "codin"},
            "field 'role' cannot be 'codin'. Did you mean 'coding'? Values: general, ",
        ),
        ("POST", "/v1/operations", "x", "the body must be an object, not text"),
        ("POST", "/v1/operations", None, "the body is missing. Send JSON, with"),
    ],
)
def test_invalid_requests_are_explained_in_words(
    herdbook: RunningService, method: str, path: str, body: object, detail: str
) -> None:
    answer = herdbook.http.request(method, path, json=body)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"kind": "refresh"} x', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"kind": "pull", "model": "\xff"}', "application/json", 400),
        (b'{"kind": "pull", "model": "\\ud800"}', "application/json", 400),
        (b'{"kind": "load", "keep_alive": NaN}', "application/json", 400),
        (b'{"kind": "load", "keep_alive": 1e400}', "application/json", 400),
        ('{"kind": "refresh"}'.encode("utf-16"), "application/json", 400),
        (b"", "application/json", 400),
        (b'{"kind": "refresh"}', "", 415),
        (b"[" * 20_000, "application/json", 400),
        (b"kind=refresh", "application/x-www-form-urlencoded", 415),
        (b"kind: refresh", "text/plain", 415),
        (
            b'{"kind": "refresh", "x": "' + b"a" * 70_000 + b'"}',
            "application/json",
            413,
        ),
    ],
)
def test_invalid_bodies_are_refused(
    herdbook: RunningService, content: bytes, kind: str, status: int
) -> None:
    before = herdbook.get("/v1/log/head")

    answer = herdbook.http.post(
        "/v1/operations",
        content=content,
        headers={"content-type": kind} if kind else {},
    )

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert herdbook.get("/v1/log/head") == before
    assert herdbook.get("/v1/operations") == []
