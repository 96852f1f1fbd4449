"""The answers of Ollama's API as types, with the fields that Herdbook reads.

Servers differ by version: missing fields have defaults, unknown fields are ignored,
and a null list is an empty one. Every field has bounds: a required field out of
bounds makes its entry unreadable, an optional one counts as missing. Nothing is
guessed. Times become UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from herdbook.core.errors import InvalidNameError
from herdbook.core.models.names import LONGEST_NAME, canonical_name
from herdbook.core.ollama.bounds import (
    LARGEST_BYTES,
    LARGEST_CONTEXT,
    LARGEST_COUNT,
    LONGEST_MESSAGE,
    NULL,
    Context,
    Digest,
    Host,
    Name,
    Size,
    in_range,
    lenient,
    optional,
    printable,
    word,
    words,
)
from herdbook.core.ollama.show_parameters import Parameter, bounded, parse_parameters
from herdbook.events.facts import Runner

Timestamp: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time as Go writes it: with nanoseconds and the offset of the server's zone."""

LONGEST_PARAMETERS: Final = 64 * 2**10
"""Maximum characters of a model's own parameters."""

LONGEST_INFO: Final = 512 * 2**10
"""Maximum size of ``model_info``, bytes; real ones have 3 to 30 KiB."""

LONGEST_DIGEST: Final = 256
"""Characters of a layer's digest in a line of a pull."""

LARGEST_TEMPERATURE: Final = 100.0

_FROM: Final = re.compile(r"^FROM (.*)$", re.MULTILINE)
_WEIGHTS: Final = re.compile(r"[/\\]sha256[-:]([0-9a-f]{64})\W*$")
_ENCODER: Final = re.compile("bert|embedding", re.IGNORECASE)
"""Architectures of embedding models: ``nomic-bert``, ``jina-bert-v2`` and others."""
_SEEING: Final = frozenset({"clip", "mllama"})
"""Architectures of models that see, or of the part of a model that does."""
_TEMPLATE_VARIABLES: Final = {
    "tools": re.compile(r"\.Tools\b"),
    "insert": re.compile(r"\.Suffix\b"),
}
_SCALES: Final = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_SIZE: Final = re.compile(r"([0-9.]{1,20})\s*([KMBT]?)", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers: an object whose unknown keys are ignored."""


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """An error, as an answer or as a line of a stream.

    Attributes:
        error: The error message; None if the line is not an error.
    """

    error: str | None = None

    @property
    def message(self) -> str | None:
        """The error message, truncated."""
        return self.error and self.error[:LONGEST_MESSAGE]


class VersionAnswer(Answer, frozen=True, kw_only=True):
    """``GET /api/version``.

    Attributes:
        raw: The JSON of the version.
    """

    raw: msgspec.Raw = msgspec.field(name="version")

    @property
    def version(self) -> str:
        """The version, such as ``0.9.6``; ``0.0.0`` in builds without a version.

        Empty, which means unknown, if it is not a short text.
        """
        return word(self.raw)


class Details(Answer, frozen=True, kw_only=True):
    """The details of a model; all may be empty, as for a cloud model.

    Attributes:
        family: The architecture.
        families: The architectures of all parts, such as ``llama`` and ``clip``.
        parameter_size: Number of parameters as text, such as ``8.0B``.
        quantization_level: The quantization, such as ``Q4_K_M``.
        context_length: Trained context, tokens; only in ``/api/tags``.
    """

    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int | None = None

    @property
    def parameter_count(self) -> int | None:
        """The number of parameters, as precise as the text."""
        return parse_parameter_count(self.parameter_size)


class _Details(msgspec.Struct):
    """The details with each field still as JSON."""

    family: msgspec.Raw = NULL
    families: msgspec.Raw = NULL
    parameter_size: msgspec.Raw = NULL
    quantization_level: msgspec.Raw = NULL
    context_length: msgspec.Raw = NULL


_DETAILS: Final = optional(_Details)
_CONTEXT: Final = optional(Context)
_TIMESTAMP: Final = optional(Timestamp)
_INFO: Final = optional(dict[str, msgspec.Raw])
_INT: Final = optional(int)
_TEXT: Final = optional(str)


def _text(raw: msgspec.Raw) -> str:
    """Return a text of any length; empty if the field is not one."""
    return lenient(raw, _TEXT, "", longest=len(raw))


def read_details(raw: msgspec.Raw) -> Details:
    """Decode the details of a model; fields that are not valid count as missing."""
    found = lenient(raw, _DETAILS, _Details())
    context: int = lenient(found.context_length, _CONTEXT, 0)
    return Details(
        family=word(found.family),
        families=tuple(words(found.families) or ()),
        parameter_size=word(found.parameter_size),
        quantization_level=word(found.quantization_level),
        context_length=context or None,
    )


class TagEntry(Answer, frozen=True, kw_only=True):
    """A model in ``GET /api/tags``.

    Attributes:
        name: The canonical name, in the server's spelling.
        digest: SHA-256 of the manifest: 64 hexadecimal digits.
        size: Sum of the layers, bytes.
        remote_host: The host of a cloud model.
    """

    name: Name
    digest: Digest
    size: Size = 0
    remote_host: Host | None = None
    details_raw: msgspec.Raw = msgspec.field(default=NULL, name="details")
    capabilities_raw: msgspec.Raw = msgspec.field(default=NULL, name="capabilities")

    def __post_init__(self) -> None:
        """Check the name, which a type cannot express."""
        _check_name(self.name)
        if self.remote_host is not None and not self.remote_host.isprintable():
            raise ValueError("its remote host is not printable")

    @property
    def details(self) -> Details:
        """The model's details."""
        return read_details(self.details_raw)

    @property
    def capabilities(self) -> list[str] | None:
        """The capabilities; None if an older server does not send them."""
        return words(self.capabilities_raw)


class RunnerEntry(Answer, frozen=True, kw_only=True):
    """A runner in ``GET /api/ps``.

    Attributes:
        name: The name of the model that started the runner.
        digest: The digest of that model at that time.
        size: Total memory, bytes.
        size_vram: Memory on the GPU, bytes.
    """

    name: Name
    digest: Digest
    size: Size = 0
    size_vram: Size = 0
    expires_at_raw: msgspec.Raw = msgspec.field(default=NULL, name="expires_at")
    context_length_raw: msgspec.Raw = msgspec.field(default=NULL, name="context_length")

    def __post_init__(self) -> None:
        """Check the name, which a type cannot express."""
        _check_name(self.name)

    @property
    def expires_at(self) -> datetime | None:
        """When keep-alive ends; None if unknown.

        In the past while a request outlasts it; after the year 2300 for never.
        """
        found: datetime | None = lenient(self.expires_at_raw, _TIMESTAMP, None)
        return to_utc(found)

    @property
    def context_length(self) -> int | None:
        """The context in effect; None if an older server does not send it."""
        found: int = lenient(self.context_length_raw, _CONTEXT, 0)
        return found or None

    @property
    def runner(self) -> Runner:
        """The runner as events record it."""
        return Runner(
            name=self.name,
            digest=self.digest,
            context_length=self.context_length,
            size_bytes=self.size,
            size_vram_bytes=self.size_vram,
            expires_at=self.expires_at,
        )


class ShowAnswer(Answer, frozen=True, kw_only=True):
    """``POST /api/show``: the details of one model, without its tensors.

    A field that is not valid counts as missing, and affects only itself.
    """

    modelfile_raw: msgspec.Raw = msgspec.field(default=NULL, name="modelfile")
    parameters_raw: msgspec.Raw = msgspec.field(default=NULL, name="parameters")
    template_raw: msgspec.Raw = msgspec.field(default=NULL, name="template")
    details_raw: msgspec.Raw = msgspec.field(name="details")
    model_info_raw: msgspec.Raw = msgspec.field(default=NULL, name="model_info")
    projector_info_raw: msgspec.Raw = msgspec.field(default=NULL, name="projector_info")
    capabilities_raw: msgspec.Raw = msgspec.field(default=NULL, name="capabilities")

    @property
    def modelfile(self) -> str:
        """The Modelfile, which names the file of the weights."""
        return _text(self.modelfile_raw)

    @property
    def parameters_text(self) -> str:
        """The model's own parameters, one per line, in random order."""
        return _text(self.parameters_raw)

    @property
    def template(self) -> str:
        """The prompt template, in Go's syntax."""
        return _text(self.template_raw)

    @property
    def details(self) -> Details:
        """The model's details."""
        return read_details(self.details_raw)

    @property
    def capabilities(self) -> list[str] | None:
        """The capabilities; None if an older server does not send them."""
        return words(self.capabilities_raw)

    @property
    def capability_evidence(self) -> dict[str, str]:
        """Capabilities by other fields than ``capabilities``, with these fields.

        Newer servers derive the capabilities from the same fields.
        """
        found: dict[str, str] = {}
        info, details = self._info(), self.details
        architecture = word(info.get("general.architecture", NULL))
        # Old servers send no model_info: then the details are all there is.
        kinds = (architecture, details.family, *details.families)
        encoder = next((one for one in kinds if _ENCODER.search(one)), None)
        pooling = next((key for key in info if key.endswith(".pooling_type")), None)
        if pooling is not None:
            found["embedding"] = pooling
        elif encoder is not None:
            found["embedding"] = f"architecture {encoder}"
        if self.has_projector:
            found["vision"] = "projector"
        elif any(key.endswith(".vision.block_count") for key in info):
            found["vision"] = "vision.block_count"
        elif seeing := next((one for one in kinds if one in _SEEING), None):
            found["vision"] = f"architecture {seeing}"
        for name, variable in _TEMPLATE_VARIABLES.items():
            if variable.search(self.template):
                found[name] = f"template: {variable.pattern[1:-2]}"
        return found

    @property
    def weights(self) -> str | None:
        """Digest of the weights: 64 hexadecimal digits; None if not in a blob."""
        line = _FROM.search(self.modelfile)
        found = _WEIGHTS.search(line[1][-200:]) if line else None
        return found[1] if found else None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The model's own parameters, sorted by name; empty if they are too long."""
        if len(self.parameters_text) > LONGEST_PARAMETERS:
            return {}
        return parse_parameters(self.parameters_text)

    @property
    def recordable_parameters(self) -> dict[str, Parameter]:
        """The model's own parameters, within the bounds of an event."""
        return bounded(self.parameters)

    @property
    def num_ctx(self) -> int | None:
        """The context size in the model's own parameters, tokens."""
        value = self.parameters.get("num_ctx")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return in_range(value, LARGEST_CONTEXT)

    @property
    def temperature(self) -> float | None:
        """The temperature in the model's own parameters."""
        value = self.parameters.get("temperature")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if 0 <= value <= LARGEST_TEMPERATURE else None

    @property
    def context_trained(self) -> int | None:
        """The context size the model was trained for, tokens."""
        return self._of_architecture("context_length")

    @property
    def parameter_count(self) -> int | None:
        """The number of parameters."""
        given = self._info().get("general.parameter_count", NULL)
        exact = in_range(_number(given), LARGEST_COUNT)
        return exact or self.details.parameter_count

    @property
    def has_projector(self) -> bool:
        """Whether the model has a projector, which reads images or sound."""
        return bytes(self.projector_info_raw).strip() not in {b"null", b"{}"}

    def _info(self) -> dict[str, msgspec.Raw]:
        """Return ``model_info`` by key; empty if it is not valid."""
        nothing: dict[str, msgspec.Raw] = {}
        return lenient(self.model_info_raw, _INFO, nothing, longest=LONGEST_INFO)

    def _of_architecture(self, key: str) -> int | None:
        """Return a number under the architecture's prefix, else under any other.

        The numbers of a vision part, such as ``llava.vision.context_length``, are not
        the model's.
        """
        info = self._info()
        own = f"{word(info.get('general.architecture', NULL))}.{key}"
        others = sorted(name for name in info if name.partition(".")[2] == key)
        for name in (own, *others):
            value = in_range(_number(info.get(name, NULL)), LARGEST_CONTEXT)
            if value is not None and not name.startswith("."):
                return value
        return None


class GenerateAnswer(Answer, frozen=True, kw_only=True):
    """``POST /api/generate`` without a prompt: a load or an unload.

    Attributes:
        done: Whether this is the last part of the answer.
    """

    done: bool


class EmbedAnswer(Answer, frozen=True, kw_only=True):
    """``POST /api/embed`` without an input: a load.

    Attributes:
        model: The name as requested.
    """

    model: str


class PullLine(Answer, frozen=True, kw_only=True):
    """A line of ``POST /api/pull`` or ``/api/create``.

    A field of another type counts as missing, so that it does not end a pull.

    Attributes:
        status: The server's current step; ``success`` is the last one.
        digest: The layer, if the line is about one.
        total: Size of the layer, bytes; None if missing or not possible.
        completed: Bytes of the layer on the server; can decrease, even to 0. None if
            unknown or not possible.
    """

    status: Any = ""
    digest: Any = None
    total: Any = None
    completed: Any = 0  # the server leaves out a zero

    def __post_init__(self) -> None:
        """Drop what is not possible, and truncate the status."""
        status = self.status if isinstance(self.status, str) else ""
        force_setattr(self, "status", printable(status, 200))
        if not isinstance(self.digest, str) or len(self.digest) > LONGEST_DIGEST:
            force_setattr(self, "digest", None)
        for name in ("total", "completed"):
            force_setattr(self, name, _bytes(getattr(self, name)))


def _bytes(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_zero = value == 0 and not isinstance(value, bool)
    return 0 if is_zero else in_range(value, LARGEST_BYTES)


def _number(raw: msgspec.Raw) -> int:
    found: int = lenient(raw, _INT, 0)
    return found


def _check_name(name: str) -> None:
    """Check that a model can be recorded under a name that a server lists.

    Raises:
        ValueError: The name is not valid, or not in canonical form.
    """
    try:
        canonical = canonical_name(name)
    except InvalidNameError as error:
        raise ValueError(error.state) from None
    if canonical != name:
        raise ValueError(f"its name is not in canonical form, {canonical[:100]!r}")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"its name is longer than {LONGEST_NAME} characters")


def to_utc(time: datetime | None) -> datetime | None:
    """Convert a time to UTC; a time out of UTC's range only changes its zone."""
    try:
        return time and time.astimezone(UTC)
    except OverflowError:
        return time and time.replace(tzinfo=UTC)


def parse_parameter_count(text: str) -> int | None:
    """Parse a number of parameters: ``134.92M`` is 134,920,000."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    try:
        count = int(Decimal(found[1]) * _SCALES[found[2].upper()])
    except ArithmeticError:  # such as two decimal points
        return None
    return count if count <= LARGEST_COUNT else None
