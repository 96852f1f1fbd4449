"""What Ollama's API answers, typed: as much of it as is read here.

Servers differ by age: what an older one leaves out has a default, what a newer one
adds is ignored, a null list is an empty one. Every field has bounds: a required one
that is out of them makes its entry unreadable, an optional one counts as missing.
Nothing is guessed. Times become UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from herdbook.core.errors import InvalidNameError
from herdbook.core.models.names import LONGEST_NAME, canonical_name
from herdbook.core.ollama.bounds import (
    LARGEST_BYTES,
    LARGEST_CONTEXT,
    LARGEST_COUNT,
    LONGEST_SAID,
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
from herdbook.core.ollama.parameters import Parameter, parse_parameters
from herdbook.events.facts import Runner

ReadModel: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset, as Go writes it: nanoseconds, the server's own zone."""

LONGEST_PARAMETERS: Final = 64 * 2**10
"""Characters of a model's own parameters."""

LONGEST_INFO: Final = 512 * 2**10
"""Bytes of what a model's file says of itself; real ones have 3 to 30 KiB."""

LARGEST_TEMPERATURE: Final = 100.0

_FROM: Final = re.compile(r"^FROM (.*)$", re.MULTILINE)
_WEIGHTS: Final = re.compile(r"[/\\]sha256[-:]([0-9a-f]{64})\W*$")
_SCALES: Final = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_SIZE: Final = re.compile(r"([0-9.]{1,20})\s*([KMBT]?)", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The root of all answers: an object whose unknown keys are ignored."""


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """What stands in place of an answer, or in a line of a stream.

    Attributes:
        error: What went wrong; None where the line is no error.
    """

    error: str | None = None

    @property
    def said(self) -> str | None:
        """The same, no longer than anybody needs."""
        return self.error and self.error[:LONGEST_SAID]


class VersionAnswer(Answer, frozen=True, kw_only=True):
    """``GET /api/version``.

    Attributes:
        raw: The JSON of the version.
    """

    raw: msgspec.Raw = msgspec.field(name="version")

    @property
    def version(self) -> str:
        """Such as ``0.9.6``; ``0.0.0`` where it was built without one.

        Empty where it is not a short text, and so not known.
        """
        return word(self.raw)


class Details(Answer, frozen=True, kw_only=True):
    """What a model is made of; all of it may be empty, as in a cloud model.

    Attributes:
        family: Its architecture.
        parameter_size: Number of parameters for people, such as ``8.0B``.
        quantization_level: Such as ``Q4_K_M``.
        context_length: Tokens it was trained for; in ``/api/tags`` alone.
    """

    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int | None = None

    @property
    def parameter_count(self) -> int | None:
        """The number of parameters, as exactly as the text for people has it."""
        return parse_size(self.parameter_size)


class _Details(msgspec.Struct):
    """The same, each field still as JSON."""

    family: msgspec.Raw = NULL
    parameter_size: msgspec.Raw = NULL
    quantization_level: msgspec.Raw = NULL
    context_length: msgspec.Raw = NULL


_DETAILS: Final = optional(_Details)
_CONTEXT: Final = optional(Context)
_MOMENT: Final = optional(ReadModel)
_INFO: Final = optional(dict[str, msgspec.Raw])
_INT: Final = optional(int)


def read_details(raw: msgspec.Raw) -> Details:
    """Read what a model is made of, as far as each field is what it should be."""
    found = lenient(raw, _DETAILS, _Details())
    context: int = lenient(found.context_length, _CONTEXT, 0)
    return Details(
        family=word(found.family),
        parameter_size=word(found.parameter_size),
        quantization_level=word(found.quantization_level),
        context_length=context or None,
    )


class TagEntry(Answer, frozen=True, kw_only=True):
    """A model in ``GET /api/tags``.

    Attributes:
        name: Canonical, spelled as it was stored.
        digest: SHA-256 of its manifest: 64 hexadecimal digits.
        size: Sum of its layers, bytes.
        remote_host: Where it runs if it is a cloud model.
    """

    name: Name
    digest: Digest
    size: Size = 0
    remote_host: Host | None = None
    details_raw: msgspec.Raw = msgspec.field(default=NULL, name="details")
    capabilities_raw: msgspec.Raw = msgspec.field(default=NULL, name="capabilities")

    def __post_init__(self) -> None:
        """Check the name, which no type can."""
        _check_name(self.name)
        if self.remote_host is not None and not self.remote_host.isprintable():
            raise ValueError("its remote host is not printable")

    @property
    def details(self) -> Details:
        """What it is made of."""
        return read_details(self.details_raw)

    @property
    def capabilities(self) -> list[str] | None:
        """What it can do; None where an older server does not say."""
        return words(self.capabilities_raw)


class RunnerEntry(Answer, frozen=True, kw_only=True):
    """A runner in ``GET /api/ps``.

    Attributes:
        name: The name that it was first loaded by.
        digest: Digest of that model at that time.
        size: Memory in all, bytes.
        size_vram: The part of it on the GPU, bytes.
    """

    name: Name
    digest: Digest
    size: Size = 0
    size_vram: Size = 0
    expires_at_raw: msgspec.Raw = msgspec.field(default=NULL, name="expires_at")
    context_length_raw: msgspec.Raw = msgspec.field(default=NULL, name="context_length")

    def __post_init__(self) -> None:
        """Check the name, which no type can."""
        _check_name(self.name)

    @property
    def expires_at(self) -> datetime | None:
        """When keep-alive ends; None where that cannot be told.

        The past while a request outlasts it, a year beyond 2300 for never.
        """
        found: datetime | None = lenient(self.expires_at_raw, _MOMENT, None)
        return to_utc(found)

    @property
    def context_length(self) -> int | None:
        """Context in effect; None where an older server does not say."""
        found: int = lenient(self.context_length_raw, _CONTEXT, 0)
        return found or None

    @property
    def runner(self) -> Runner:
        """The same as it is recorded."""
        return Runner(
            name=self.name,
            digest=self.digest,
            context_length=self.context_length,
            size_bytes=self.size,
            size_vram_bytes=self.size_vram,
            expires_at=self.expires_at,
        )


class ShowAnswer(Answer, frozen=True, kw_only=True):
    """``POST /api/show``: one model in full, without its tensors.

    Attributes:
        modelfile: The recipe; it names the file of the weights.
        parameters_text: The model's own parameters, one a line, in random order.
        template: How messages become a prompt.
    """

    modelfile: str = ""
    parameters_text: str = msgspec.field(default="", name="parameters")
    template: str = ""
    details_raw: msgspec.Raw = msgspec.field(name="details")
    model_info_raw: msgspec.Raw = msgspec.field(default=NULL, name="model_info")
    projector_info_raw: msgspec.Raw = msgspec.field(default=NULL, name="projector_info")
    capabilities_raw: msgspec.Raw = msgspec.field(default=NULL, name="capabilities")

    @property
    def details(self) -> Details:
        """What it is made of."""
        return read_details(self.details_raw)

    @property
    def capabilities(self) -> list[str] | None:
        """What it can do; None where an older server does not say."""
        return words(self.capabilities_raw)

    @property
    def weights(self) -> str | None:
        """Digest of the file of numbers: 64 hexadecimal digits; None if elsewhere."""
        line = _FROM.search(self.modelfile)
        found = _WEIGHTS.search(line[1][-200:]) if line else None
        return found[1] if found else None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The model's own parameters, sorted by name; none where they are too long."""
        if len(self.parameters_text) > LONGEST_PARAMETERS:
            return {}
        return parse_parameters(self.parameters_text)

    @property
    def num_ctx(self) -> int | None:
        """The context that its own parameters ask for."""
        value = self.parameters.get("num_ctx")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return in_range(value, LARGEST_CONTEXT)

    @property
    def temperature(self) -> float | None:
        """The temperature that its own parameters ask for."""
        value = self.parameters.get("temperature")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if 0 <= value <= LARGEST_TEMPERATURE else None

    @property
    def context_trained(self) -> int | None:
        """Tokens that the model was trained for."""
        return self._of_architecture("context_length")

    @property
    def parameter_count(self) -> int | None:
        """The number of parameters."""
        given = self._info().get("general.parameter_count", NULL)
        exact = in_range(_number(given), LARGEST_COUNT)
        return exact or self.details.parameter_count

    @property
    def has_projector(self) -> bool:
        """Whether a file that reads images or sound belongs to it."""
        return bytes(self.projector_info_raw).strip() not in {b"null", b"{}"}

    def _info(self) -> dict[str, msgspec.Raw]:
        """Return what its file says of itself, by key; nothing where that is odd."""
        nothing: dict[str, msgspec.Raw] = {}
        return lenient(self.model_info_raw, _INFO, nothing, longest=LONGEST_INFO)

    def _of_architecture(self, key: str) -> int | None:
        """Look a key up under the architecture, else under whatever else has it.

        A vision part has figures of its own, which are not the model's.
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
        done: Whether that was all.
    """

    done: bool


class EmbedAnswer(Answer, frozen=True, kw_only=True):
    """``POST /api/embed`` without an input: a load.

    Attributes:
        model: The name as it was asked for.
    """

    model: str


class PullLine(Answer, frozen=True, kw_only=True):
    """A line of ``POST /api/pull`` or ``/api/create``.

    Attributes:
        status: What the server is doing; ``success`` ends it.
        digest: The layer that it is about, where it is about one.
        total: Size of that layer, bytes; None where that is no possible size.
        completed: What the server has of it, bytes; it can go back, to nothing too.
            None where it is no possible figure.
    """

    status: str = ""
    digest: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    total: int | None = None
    completed: int | None = 0  # the server leaves out a zero

    def __post_init__(self) -> None:
        """Drop figures that cannot be, and keep the text short."""
        force_setattr(self, "status", printable(self.status, 200))
        for name in ("total", "completed"):
            if not 0 <= (getattr(self, name) or 0) <= LARGEST_BYTES:
                force_setattr(self, name, None)


def _number(raw: msgspec.Raw) -> int:
    found: int = lenient(raw, _INT, 0)
    return found


def _check_name(name: str) -> None:
    """Check that a model may be recorded under a name that a server lists.

    Raises:
        ValueError: It is none, or spelled so that nothing would find it again.
    """
    try:
        canonical = canonical_name(name)
    except InvalidNameError as error:
        raise ValueError(error.state) from None
    if canonical != name:
        raise ValueError(f"its name would be {canonical[:100]!r} in Ollama's own form")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"its name is longer than {LONGEST_NAME} characters")


def to_utc(moment: datetime | None) -> datetime | None:
    """Bring a time to UTC; one so early or late that it has none keeps its digits."""
    try:
        return moment and moment.astimezone(UTC)
    except OverflowError:
        return moment and moment.replace(tzinfo=UTC)


def parse_size(text: str) -> int | None:
    """Read a number of parameters: ``134.92M`` is 134,920,000."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    try:
        count = int(Decimal(found[1]) * _SCALES[found[2].upper()])
    except ArithmeticError:  # such as two points
        return None
    return count if count <= LARGEST_COUNT else None
