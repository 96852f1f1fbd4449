"""Every error of the tree has its HTTP answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from litestar import get
from litestar.params import FromPath
from litestar.testing import TestClient, create_test_client

from herdbook.core import errors as core_errors
from herdbook.core.errors import HerdbookError
from herdbook.service import errors as service_errors
from herdbook.service.app import FAILURES
from herdbook.service.problems import STATUSES, answer, status_of

EXPECTED = {
    "HerdbookError": 500,
    "CallerError": 400,
    "IllegalTransitionError": 409,
    "WrongStreamError": 400,
    "InvalidNameError": 400,
    "InvalidAddressError": 400,
    "InvalidConfigurationError": 400,
    "InvalidCatalogueError": 400,
    "NodeAddressError": 409,
    "InvalidDesiredError": 400,
    "AmbiguousNodeError": 409,
    "NoPlaceError": 409,
    "UnknownNodeError": 404,
    "UnknownRoleError": 404,
    "UnknownDimensionError": 400,
    "ModelNotFoundError": 404,
    "OperationEndedError": 409,
    "BusyError": 409,
    "OllamaError": 502,
    "NodeUnreachableError": 502,
    "NodeTimeoutError": 504,
    "BadAnswerError": 502,
    "RefusedError": 502,
    "BusyServerError": 503,
    "ServerFailedError": 502,
    "ModelDamagedError": 502,
    "CapabilityMissingError": 409,
    "CloudModelError": 409,
    "LoadFailedError": 502,
    "PullError": 502,
    "PullRefusedError": 502,
    "DiskFullError": 507,
    "DigestMismatchError": 502,
    "StalledError": 504,
    "PullCutError": 502,
    "PullCancelledError": 502,
    "StoreError": 500,
    "ConflictError": 409,
    "WrongExpectedVersionError": 409,
    "EventIdConflictError": 409,
    "CorruptLogError": 500,
    "UnknownEventTypeError": 500,
    "UndecodableEventError": 500,
    "OutcomeUnknownError": 500,
    "StoreClosedError": 503,
    "ResourceExhaustedError": 503,
    "StoreUnavailableError": 503,
    "StoreFullError": 507,
    "NotALogError": 500,
    "NewerSchemaError": 500,
    "BadRequestError": 400,
    "BadPathError": 404,
    "BadMethodError": 405,
    "UnknownOperationError": 404,
    "UnknownTokenError": 404,
    "TokenConflictError": 409,
    "UnknownModelError": 404,
    "UnknownEventError": 404,
    "MissingExtraError": 500,
    "ModelKeptError": 409,
    "KeyReusedError": 422,
    "PreconditionMissingError": 428,
    "PreconditionFailedError": 412,
    "UnsupportedMediaError": 415,
    "TooLargeError": 413,
    "TooSlowError": 408,
    "UnauthorizedError": 401,
    "ForbiddenError": 403,
    "ReadOnlyError": 403,
    "CrossSiteError": 403,
    "UnprovenFormError": 403,
    "HostNotAllowedError": 421,
    "TooManyFailuresError": 429,
    "InvalidServiceError": 400,
    "StoppingError": 503,
    "OverloadedError": 503,
}


def classes_of(module: object) -> list[type[HerdbookError]]:
    """Return the errors that a module has."""
    members = vars(module).values()
    return [m for m in members if isinstance(m, type) and issubclass(m, HerdbookError)]


CLASSES = {
    each.__name__: each
    for each in (*classes_of(core_errors), *classes_of(service_errors))
}


def made(name: str) -> HerdbookError:
    """Return an error of a class, whatever its own fields are."""
    kind = CLASSES[name]
    error = kind.__new__(kind)
    HerdbookError.__init__(error, "the subject", "is in a state", "Do this")
    error.retry_after_s = 7  # type: ignore[attr-defined]  # the one who tells it
    return error


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Any]]:
    """Return a client of an application that raises what it is asked for."""

    @get("/raise/{name:str}")
    async def fail(name: FromPath[str]) -> None:
        if name == "ValueError":
            raise ValueError("hb_secret at /home/somebody")
        raise made(name)

    with create_test_client(
        fail, exception_handlers=FAILURES, raise_server_exceptions=False
    ) as made_client:
        yield made_client


def test_error_table_has_exactly_the_known_errors() -> None:
    assert set(EXPECTED) == set(CLASSES)
    assert {kind.__name__ for kind in STATUSES} <= set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_error_is_answered_as_a_problem(client: TestClient[Any], name: str) -> None:
    answered = client.get(f"/raise/{name}", headers={"accept": "*/*"})

    result = answered.json()
    assert answered.status_code == result["status"] == EXPECTED[name]
    assert answered.headers["content-type"] == "application/problem+json"
    assert result["code"] == CLASSES[name].code
    assert result["detail"] == "the subject is in a state. Do this"
    assert (result["subject"], result["state"], result["remedy"]) == (
        *("the subject", "is in a state"),
        "Do this",
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_middleware_answers_in_the_same_format(
    client: TestClient[Any], name: str
) -> None:
    status, headers, body = answer(made(name))

    answered = client.get(f"/raise/{name}", headers={"accept": "*/*"})
    assert (answered.status_code, answered.content) == (status, body)
    assert {n: answered.headers[n] for n in headers} == headers


def test_temporary_errors_have_a_retry_after_header() -> None:
    later = {"BusyServerError", "StoppingError", "StoreClosedError"}
    for name in later | {"StoreUnavailableError"}:
        assert answer(made(name))[1]["retry-after"] == "1"
    assert answer(made("TooManyFailuresError"))[1]["retry-after"] == "7"
    assert "retry-after" not in answer(made("BusyError"))[1]


def test_missing_token_says_how_to_send_one() -> None:
    assert answer(made("UnauthorizedError"))[1]["www-authenticate"].startswith("Bearer")


def test_unexpected_error_is_sent_without_its_text(client: TestClient[Any]) -> None:
    answered = client.get("/raise/ValueError", headers={"accept": "*/*"})

    assert answered.status_code == 500
    assert answered.json()["code"] == "unexpected"
    assert "hb_secret" not in answered.text
    assert "somebody" not in answered.text


def test_drawn_error_tree_matches_the_classes() -> None:
    drawn = set(re.findall(r"[├└]── (\w+Error)", service_errors.__doc__ or ""))

    own = {
        each.__name__
        for each in classes_of(service_errors)
        if each.__module__ == service_errors.__name__
    }
    assert drawn == own | {"CallerError"}


def test_every_error_has_its_own_code() -> None:
    codes = [each.code for each in CLASSES.values()]

    assert len(set(codes)) == len(codes)


def test_nearest_base_class_decides() -> None:
    class OwnError(core_errors.StalledError):
        pass

    error = OwnError.__new__(OwnError)
    assert status_of(error) == 504
