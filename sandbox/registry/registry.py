"""The simulated registry that models are pulled from, and its faults.

Invariant: a connection keeps the behaviour that it started with. A change applies to
later connections, as on a real network.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from herdbook.sandbox.models.artifacts import Package
from herdbook.sandbox.models.names import DEFAULT_HOST, Name

#: Default bytes per second of one connection, as over a loopback.
FAST: Final = 90e6


class PullError(Exception):
    """A pull fails with this text."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Behaviour of the registry; by default, without faults.

    Attributes:
        rate: Bytes per second of each connection.
        latency_s: Seconds before any answer.
        manifest_status: Status for manifests; 0 for the correct one.
        manifest_body: Body of that answer.
        blob_status: Status for blobs; 0 for the correct one.
        cut_after: Bytes after which a connection ends as if it were complete.
        reset_after: Bytes after which a connection is reset.
        stall_after: Bytes after which a connection stalls.
        corrupt: Whether the bytes of blobs are wrong.
        alias: Names (``library/x:latest``) that resolve to others.
        unreachable: Text of the network error while no host can be reached.
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
        hosts: For each host, packages by ``namespace/model:tag``.
        plain: Hosts that speak only plain HTTP.
        usual: Behaviour without faults.
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
            name: The model.
            insecure: Whether plain HTTP is allowed.
            old: Whether the server has the refusal texts of 2025.

        Raises:
            PullError: The pull fails, with this text.
        """
        self.requests += 1
        self._reach(name, insecure=insecure)
        behaviour = self.behaviour
        if behaviour.manifest_status == 401:
            raise PullError(f"pull model manifest: {_no_realm(name.host, old=old)}")
        if behaviour.manifest_status not in {0, 200, 404}:
            answer = f"{behaviour.manifest_status}: {behaviour.manifest_body}"
            raise PullError(f"pull model manifest: {answer}")
        path = behaviour.alias.get(_path(name), _path(name))
        package = self.hosts[name.host].get(path)
        if package is None or behaviour.manifest_status == 404:
            raise PullError("pull model manifest: file does not exist")
        return package

    def _reach(self, name: Name, *, insecure: bool) -> None:
        scheme = "http" if insecure else "https"
        path = f"v2/{name.namespace}/{name.model}/manifests/{name.tag}"
        asked = f'pull model manifest: Get "{scheme}://{name.host}/{path}"'
        if self.behaviour.unreachable:
            raise PullError(f"{asked}: {self.behaviour.unreachable}")
        if name.host not in self.hosts:
            raise PullError(f"{asked}: {_unreachable(name.host)}")
        if name.host in self.plain and not insecure:
            raise PullError(f"{asked}: EOF")


def _path(name: Name) -> str:
    return f"{name.namespace}/{name.model}:{name.tag}".lower()


def _no_realm(host: str, *, old: bool) -> str:
    if old:
        query = "nonce=c2FuZGJveA&scope=&service=&ts=1767225600"
        return f'Get "?{query}": unsupported protocol scheme ""'
    return f'realm host "" does not match original host "{host}"'


def _unreachable(host: str) -> str:
    if re.fullmatch(r"[\d.]+(:\d+)?|localhost(:\d+)?", host):
        address = host if ":" in host else f"{host}:443"
        return f"dial tcp {address}: connect: connection refused"
    return f"dial tcp: lookup {host.partition(':')[0]}: no such host"
