"""Pretend the registry that models are pulled from, and how badly it behaves.

Invariant: a connection keeps the behaviour that it began with; a change reaches the
connections that begin later, as on a real network.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from herdbook.sandbox.models.artifacts import Package
from herdbook.sandbox.models.names import DEFAULT_HOST, Name

#: Bytes per second of one connection where nothing is said: what a loopback gives.
FAST: Final = 90e6


class PullError(Exception):
    """A pull fails with this text."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the registry behaves; without arguments, well.

    Attributes:
        rate: bytes per second of each connection.
        latency_s: what any answer takes.
        manifest_status: the status for manifests, 0 for what is true.
        manifest_body: what stands in that answer.
        blob_status: the status for blobs, 0 for what is true.
        cut_after: bytes after which a connection ends as if all were sent.
        reset_after: bytes after which a connection is reset.
        stall_after: bytes after which nothing more comes.
        corrupt: whether the bytes of blobs are wrong.
        alias: names (``library/x:latest``) that stand for others.
        unreachable: the network's words, where nobody can be reached.
    """

    rate: float | None = None
    latency_s: float = 0.002
    manifest_status: int = 0
    manifest_body: str = ""
    blob_status: int = 0
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    corrupt: bool = False
    alias: dict[str, str] = {}
    unreachable: str = ""


class Registry:
    """Registries by host, and the behaviour that they share.

    Attributes:
        hosts: by host, packages by ``namespace/model:tag``.
        plain: hosts that speak plain http alone.
        usual: the behaviour to come back to.
    """

    def __init__(self, usual: Behaviour | None = None) -> None:
        self.hosts: dict[str, dict[str, Package]] = {DEFAULT_HOST: {}}
        self.plain: set[str] = set()
        self.usual = usual or Behaviour()
        self.behaviour = self.usual
        self.requests = 0

    def offer(self, host: str, packages: dict[str, Package]) -> None:
        """Offer models, by names without a host."""
        offered = self.hosts.setdefault(host, {})
        for text, package in packages.items():
            name = Name.parse(text)
            if name is not None:
                offered[_path(name)] = package

    def fetch(self, name: Name, *, insecure: bool, old: bool = False) -> Package:
        """Fetch a manifest.

        Args:
            name: what to fetch.
            insecure: whether plain http will do.
            old: whether the asking server words refusals as in 2025.

        Raises:
            PullError: with the text that the pull ends with.
        """
        self.requests += 1
        self._reach(name, insecure=insecure)
        told = self.behaviour
        if told.manifest_status == 401:
            raise PullError(f"pull model manifest: {_no_realm(name.host, old=old)}")
        if told.manifest_status not in {0, 200, 404}:
            answer = f"{told.manifest_status}: {told.manifest_body}"
            raise PullError(f"pull model manifest: {answer}")
        path = told.alias.get(_path(name), _path(name))
        package = self.hosts[name.host].get(path)
        if package is None or told.manifest_status == 404:
            raise PullError("pull model manifest: file does not exist")
        return package

    def _reach(self, name: Name, *, insecure: bool) -> None:
        scheme = "http" if insecure else "https"
        path = f"v2/{name.namespace}/{name.model}/manifests/{name.tag}"
        asked = f'pull model manifest: Get "{scheme}://{name.host}/{path}"'
        if self.behaviour.unreachable:
            raise PullError(f"{asked}: {self.behaviour.unreachable}")
        if name.host not in self.hosts:
            raise PullError(f"{asked}: {_nobody_there(name.host)}")
        if name.host in self.plain and not insecure:
            raise PullError(f"{asked}: EOF")


def _path(name: Name) -> str:
    return f"{name.namespace}/{name.model}:{name.tag}".lower()


def _no_realm(host: str, *, old: bool) -> str:
    if old:
        query = "nonce=c2FuZGJveA&scope=&service=&ts=1767225600"
        return f'Get "?{query}": unsupported protocol scheme ""'
    return f'realm host "" does not match original host "{host}"'


def _nobody_there(host: str) -> str:
    if re.fullmatch(r"[\d.]+(:\d+)?|localhost(:\d+)?", host):
        address = host if ":" in host else f"{host}:443"
        return f"dial tcp {address}: connect: connection refused"
    return f"dial tcp: lookup {host.partition(':')[0]}: no such host"
