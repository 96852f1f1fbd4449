"""Results of the library in Pydantic models, as FastAPI uses them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from herdbook.core import (
    Diagnosis,
    HistoryEntry,
    ModelStatus,
    NodeStatus,
    Recommendation,
    Usage,
)

STATUS = ModelStatus(
    node="local", name="a:1", since=datetime(2026, 1, 2, tzinfo=UTC), uses=3
)


class Answer(BaseModel):
    """A model of a web service."""

    status: ModelStatus | None
    node: NodeStatus


def test_pydantic_model_with_statuses_becomes_json() -> None:
    answer = Answer(status=STATUS, node=NodeStatus(name="local"))

    result = answer.model_dump(mode="json")

    assert result["status"] == STATUS.to_dict()
    assert result["status"]["since"] == "2026-01-02T00:00:00Z"
    assert result["node"]["name"] == "local"


def test_list_of_statuses_becomes_json() -> None:
    result = TypeAdapter(list[ModelStatus]).dump_python([STATUS], mode="json")

    assert result == [STATUS.to_dict()]


@pytest.mark.parametrize(
    "kind", [Diagnosis, HistoryEntry, ModelStatus, NodeStatus, Recommendation, Usage]
)
def test_result_has_a_schema_for_openapi(kind: Any) -> None:
    schema = TypeAdapter(kind).json_schema(mode="serialization")

    assert schema["type"] == "object"


def test_other_value_is_no_status() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ModelStatus).validate_python({"node": "local", "name": "a:1"})
