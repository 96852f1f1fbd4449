"""Structs that Pydantic and FastAPI serialize, without importing either."""

from __future__ import annotations

from typing import Any

import msgspec


class Serializable:
    """A base of public structs, which Pydantic models and FastAPI can contain.

    They are validated by their class, and serialized as ``msgspec.to_builtins`` does.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the struct as a dictionary that ``json.dumps`` accepts."""
        result: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return result

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Return the schema of the class, which only Pydantic asks for."""
        from pydantic_core import core_schema  # noqa: PLC0415 - an optional library

        return core_schema.is_instance_schema(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.to_dict,
                return_schema=core_schema.dict_schema(core_schema.str_schema()),
            ),
        )
