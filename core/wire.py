"""What Ollama's API answers, typed: as much of it as is read here.

Servers differ by age: what an older one leaves out has a default, what a newer one
adds is ignored, a null list is an empty one. What is there but of another type is
an answer that cannot be read, never a guess. Times become UTC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from herdbook.events.facts import Runner

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its offset, as Go writes it: nanoseconds, the server's own zone."""

Parameter: TypeAlias = bool | int | float | str | list[bool | int | float | str]
"""The value of a model's parameter; a list where it was given several times."""

_WEIGHTS: Final = re.compile(r"[/\\]sha256[-:]([0-9a-f]{64})\W*$")
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL
)
_ESCAPED: Final = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_SCALES: Final = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_SIZE: Final = re.compile(r"([0-9.]+)\s*([KMBT]?)", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The root of all answers: an object whose unknown keys are ignored."""


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """What stands in place of an answer, or in a line of a stream.

    Attributes:
        error: What went wrong; None where the line is no error.
    """

    error: str | None = None


class VersionAnswer(Answer, frozen=True, kw_only=True):
    """``GET /api/version``.

    Attributes:
        version: Such as ``0.9.6``; ``0.0.0`` where it was built without one.
    """

    version: str


class Details(Answer, frozen=True, kw_only=True):
    """What a model is made of; all of it may be empty, as in a cloud model.

    Attributes:
        parent_model: What it was made from.
        format: ``gguf`` or ``safetensors``.
        family: Its architecture.
        families: The architectures of all its files.
        parameter_size: Number of parameters for people, such as ``8.0B``.
        quantization_level: Such as ``Q4_K_M``.
        context_length: Tokens it was trained for; in ``/api/tags`` alone.
        embedding_length: Width of its vectors; in ``/api/tags`` alone.
    """

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: list[str] | None = None
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int | None = None
    embedding_length: int | None = None

    @property
    def parameter_count(self) -> int | None:
        """The number of parameters, as exactly as the text for people has it."""
        return parse_size(self.parameter_size)


class TagEntry(Answer, frozen=True, kw_only=True):
    """A model in ``GET /api/tags``.

    Attributes:
        name: Canonical, spelled as it was stored.
        digest: SHA-256 of its manifest: 64 hexadecimal digits.
        size: Sum of its layers, bytes.
        modified_at: When its manifest was written.
        details: What it is made of.
        capabilities: What it can do; None where an older server does not say.
        remote_host: Where it runs if it is a cloud model.
        remote_model: Its name there.
    """

    name: str
    model: str = ""
    digest: str
    size: int = 0
    modified_at: Moment | None = None
    details: Details = Details()
    capabilities: list[str] | None = None
    remote_host: str | None = None
    remote_model: str | None = None

    def __post_init__(self) -> None:
        """Bring the time to UTC."""
        force_setattr(self, "modified_at", to_utc(self.modified_at))


class TagsAnswer(Answer, frozen=True, kw_only=True):
    """``GET /api/tags``.

    Attributes:
        models: What the server has. An answer without the key is none of Ollama's,
            and must not read as *it has nothing*.
    """

    models: list[TagEntry] | None


class RunnerEntry(Answer, frozen=True, kw_only=True):
    """A runner in ``GET /api/ps``.

    Attributes:
        name: The name that it was first loaded by.
        digest: Digest of that model at that time.
        size: Memory in all, bytes.
        size_vram: The part of it on the GPU, bytes.
        expires_at: When keep-alive ends; the past while a request outlasts it, a
            year beyond 2300 for never.
        context_length: Context in effect; None where an older server does not say.
        details: What the model is made of.
    """

    name: str
    model: str = ""
    digest: str
    size: int = 0
    size_vram: int = 0
    expires_at: Moment | None = None
    context_length: int | None = None
    details: Details = Details()

    def __post_init__(self) -> None:
        """Bring the time to UTC."""
        force_setattr(self, "expires_at", to_utc(self.expires_at))

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


class PsAnswer(Answer, frozen=True, kw_only=True):
    """``GET /api/ps``.

    Attributes:
        models: What is in memory; the key is always there.
    """

    models: list[RunnerEntry] | None


class ShowAnswer(Answer, frozen=True, kw_only=True):
    """``POST /api/show``: one model in full, without its tensors.

    Attributes:
        modelfile: The recipe; it names the file of the weights.
        parameters_text: The model's own parameters, one a line, in random order.
        template: How messages become a prompt.
        system: The model's own system message.
        license: Its licences.
        details: What it is made of.
        model_info: What its file says of itself, by key.
        projector_info: The same of the file that reads images, if there is one.
        capabilities: What it can do; None where an older server does not say.
        modified_at: When its manifest was written.
        requires: The oldest server that can run it.
        remote_host: Where it runs if it is a cloud model.
        remote_model: Its name there.
    """

    modelfile: str = ""
    parameters_text: str = msgspec.field(default="", name="parameters")
    template: str = ""
    system: str = ""
    license: str = ""
    details: Details
    model_info: dict[str, object] | None = None
    projector_info: dict[str, object] | None = None
    capabilities: list[str] | None = None
    modified_at: Moment | None = None
    requires: str = ""
    remote_host: str | None = None
    remote_model: str | None = None

    def __post_init__(self) -> None:
        """Bring the time to UTC."""
        force_setattr(self, "modified_at", to_utc(self.modified_at))

    @property
    def weights(self) -> str | None:
        """Digest of the file of numbers: 64 hexadecimal digits; None if elsewhere."""
        for line in self.modelfile.split("\n"):
            if line.startswith("FROM "):
                found = _WEIGHTS.search(line)
                return found[1] if found else None
        return None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The model's own parameters, sorted by name."""
        return parse_parameters(self.parameters_text)

    @property
    def num_ctx(self) -> int | None:
        """The context that its own parameters ask for."""
        value = self._number("num_ctx")
        return None if value is None else int(value)

    @property
    def temperature(self) -> float | None:
        """The temperature that its own parameters ask for."""
        return self._number("temperature")

    @property
    def context_trained(self) -> int | None:
        """Tokens that the model was trained for."""
        return self._of_architecture("context_length")

    @property
    def embedding_length(self) -> int | None:
        """The width of its vectors."""
        return self._of_architecture("embedding_length")

    @property
    def parameter_count(self) -> int | None:
        """The number of parameters."""
        exact = _positive((self.model_info or {}).get("general.parameter_count"))
        return exact or self.details.parameter_count

    @property
    def has_projector(self) -> bool:
        """Whether a file that reads images or sound belongs to it."""
        return bool(self.projector_info)

    def _number(self, name: str) -> float | None:
        value = self.parameters.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) else None

    def _of_architecture(self, key: str) -> int | None:
        """Look a key up under the architecture, else under whatever else has it.

        A vision part has figures of its own, which are not the model's.
        """
        info = self.model_info or {}
        own = _positive(info.get(f"{info.get('general.architecture')}.{key}"))
        if own is not None:
            return own
        for name in sorted(info):
            prefix, _, rest = name.partition(".")
            value = _positive(info[name])
            if prefix and rest == key and value is not None:
                return value
        return None


class GenerateAnswer(Answer, frozen=True, kw_only=True):
    """``POST /api/generate`` without a prompt: a load or an unload.

    Attributes:
        model: The name as it was asked for.
        created_at: When it was answered.
        response: Empty.
        done: Whether that was all.
        done_reason: ``load`` or ``unload``.
    """

    model: str = ""
    created_at: Moment | None = None
    response: str = ""
    done: bool
    done_reason: str = ""


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
        total: Size of that layer, bytes.
        completed: What the server has of it, bytes; it can go back, to nothing too.
    """

    status: str = ""
    digest: str | None = None
    total: int | None = None
    completed: int = 0


def to_utc(moment: datetime | None) -> datetime | None:
    """Bring a time to UTC; one so early or late that it has none keeps its digits."""
    try:
        return moment and moment.astimezone(UTC)
    except OverflowError:
        return moment and moment.replace(tzinfo=UTC)


def parse_size(text: str) -> int | None:
    """Read a number of parameters: ``134.92M`` is 134,920,000."""
    found = _SIZE.fullmatch(text.strip())
    try:
        return int(Decimal(found[1]) * _SCALES[found[2].upper()]) if found else None
    except InvalidOperation:
        return None


def parse_parameters(text: str) -> dict[str, Parameter]:
    """Read the lines of ``parameters``: a name, spaces, a value as Go writes it."""
    parameters: dict[str, Parameter] = {}
    for name, value in sorted(_parameter_lines(text), key=lambda pair: pair[0]):
        before = parameters.get(name)
        if before is None:
            parameters[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            parameters[name] = [before, value]
    return parameters


def _parameter_lines(text: str) -> Iterator[tuple[str, bool | int | float | str]]:
    for line in text.split("\n"):
        name, _, written = line.strip().partition(" ")
        if name:
            yield name, _go_value(written.strip())


def _go_value(text: str) -> bool | int | float | str:
    """Read a value as Go's ``%#v`` writes it; what is none of that stays a text."""
    if text in {"true", "false"}:
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _ESCAPE.sub(_unescape, text[1:-1])
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _unescape(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits is None:
        return _ESCAPED.get(found[4], found[4])
    code = int(digits, 16)
    return chr(code) if code <= 0x10FFFF else found[0]


def _positive(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None
