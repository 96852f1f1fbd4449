"""Contents of the simulated store: weights, layers, manifests, packages.

Invariant: a layer is named by the digest of its content, so equal content is one
blob, and a manifest's digest says everything about the model that it names. Weights
alone do not exist: only their size and description are stored.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

import msgspec

from herdbook.sandbox.request_bodies import Json


class Kind(StrEnum):
    """The media types of layers."""

    WEIGHTS = "application/vnd.ollama.image.model"
    TEMPLATE = "application/vnd.ollama.image.template"
    SYSTEM = "application/vnd.ollama.image.system"
    PARAMETERS = "application/vnd.ollama.image.params"
    LICENSE = "application/vnd.ollama.image.license"
    CONFIG = "application/vnd.docker.container.image.v1+json"


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a weights file; sizes in bytes.

    Attributes:
        tokens: how many tokens the vocabulary names.
        capabilities: what the file alone says that it can do.
        capabilities_in_tags: the same as the list of models sees it, which looks
            less closely; None where it sees the same.
        info: the keys of the architecture, without its prefix.
        tokenizer: the keys below ``tokenizer.ggml.``.
    """

    digest: str
    size: int
    architecture: str
    parameter_count: int
    parameter_size: str
    quantization: str
    file_type: int
    context_length: int
    embedding_length: int
    tokens: int = 0
    capabilities: tuple[str, ...] = ("completion",)
    capabilities_in_tags: tuple[str, ...] | None = None
    info: Json = {}
    tokenizer: Json = {}


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The layer that says what a model is."""

    model_format: str
    model_family: str
    model_families: tuple[str, ...] | None
    model_type: str
    file_type: str
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    architecture: str = ""
    os: str = ""
    rootfs: Json = {}


NO_CONFIG: Final = Config(
    model_format="", model_family="", model_families=None, model_type="", file_type=""
)
"""The config of a model that is not here."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a manifest.

    Attributes:
        origin: the model that the layer was taken from, if from another.
    """

    kind: Kind
    digest: str
    size: int
    origin: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The layers that make a model."""

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        """The identity of the content, 64 hexadecimal digits."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers in the order in which they are pulled: the config last."""
        return (*self.layers, self.config)

    @property
    def size(self) -> int:
        """The bytes of all layers."""
        return sum(layer.size for layer in self.all_layers)


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """The content behind a digest: text, or the description of weights."""

    digest: str
    size: int
    text: str = ""
    weights: Weights | None = None

    @classmethod
    def of_text(cls, text: str) -> Blob:
        """Make the blob of a text."""
        raw = text.encode()
        return cls(digest=digest_of(raw), size=len(raw), text=text)

    @classmethod
    def of_weights(cls, weights: Weights) -> Blob:
        """Make the blob of weights that exist as a description only."""
        return cls(digest=weights.digest, size=weights.size, weights=weights)


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A model as a registry offers it: the manifest and every blob of it."""

    manifest: Manifest
    blobs: tuple[Blob, ...]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a model's layers."""

    config: Config
    weights: Weights | None = None
    template: str = ""
    system: str = ""
    license: str = ""
    parameters: Json = {}


def digest_of(raw: bytes) -> str:
    """Name content: ``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def pack(
    contents: Contents,
    *,
    origins: dict[str, str] | None = None,
    older: bool = False,
) -> Package:
    """Make the package of a model.

    Args:
        contents: what shall stand in its layers.
        origins: by digest, the model that a layer was taken from.
        older: whether the config lists the layers, as it did once.
    """
    blobs: list[tuple[Kind, Blob]] = []
    if contents.weights is not None:
        blobs.append((Kind.WEIGHTS, Blob.of_weights(contents.weights)))
    texts = (
        (Kind.TEMPLATE, contents.template),
        (Kind.SYSTEM, contents.system),
        (Kind.PARAMETERS, _parameters_text(contents.parameters)),
        (Kind.LICENSE, contents.license),
    )
    blobs += [(kind, Blob.of_text(text)) for kind, text in texts if text]
    digests = [blob.digest for _, blob in blobs]
    config = Blob.of_text(_config_text(contents.config, digests if older else None))
    layers = tuple(_layer(kind, blob, origins or {}) for kind, blob in blobs)
    manifest = Manifest(config=_layer(Kind.CONFIG, config, {}), layers=layers)
    return Package(manifest=manifest, blobs=(*(blob for _, blob in blobs), config))


def unpack(manifest: Manifest, blobs: dict[str, Blob]) -> Contents:
    """Read a model's layers; missing ones are ignored."""
    found = {
        layer.kind: blobs[layer.digest]
        for layer in manifest.all_layers
        if layer.digest in blobs
    }
    empty = Blob(digest="", size=0)
    parameters = found.get(Kind.PARAMETERS, empty).text
    config = found.get(Kind.CONFIG, empty).text
    return Contents(
        config=msgspec.json.decode(config, type=Config) if config else NO_CONFIG,
        weights=found.get(Kind.WEIGHTS, empty).weights,
        template=found.get(Kind.TEMPLATE, empty).text,
        system=found.get(Kind.SYSTEM, empty).text,
        license=found.get(Kind.LICENSE, empty).text,
        parameters=msgspec.json.decode(parameters, type=Json) if parameters else {},
    )


def config_of(weights: Weights) -> Config:
    """Describe weights in the words of a config layer."""
    return Config(
        model_format="gguf",
        model_family=weights.architecture,
        model_families=(weights.architecture,),
        model_type=weights.parameter_size,
        file_type=weights.quantization,
        rootfs={"type": "", "diff_ids": None},
    )


def _config_text(config: Config, listed: list[str] | None) -> str:
    if listed is None:
        return msgspec.json.encode(config).decode()
    root: Json = {"type": "layers", "diff_ids": listed}
    older = msgspec.structs.replace(
        config, architecture="amd64", os="linux", rootfs=root
    )
    return msgspec.json.encode(older).decode() + "\n"


def _parameters_text(parameters: Json) -> str:
    if not parameters:
        return ""
    escaped = msgspec.json.encode(parameters).decode()
    return escaped.replace("<", "\\u003c").replace(">", "\\u003e") + "\n"


def _layer(kind: Kind, blob: Blob, origins: dict[str, str]) -> Layer:
    origin = origins.get(blob.digest, "")
    return Layer(kind=kind, digest=blob.digest, size=blob.size, origin=origin)
