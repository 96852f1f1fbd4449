"""By which name a request addresses this service, and from which site it comes.

A page of another site can let a name of its own point here (DNS rebinding), and can
let a browser send requests here. Both show: in the ``Host`` header, and in what a
browser says of the site that asks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from herdbook.service.errors import (
    CrossSiteError,
    HostNotAllowedError,
    InvalidServiceError,
)
from herdbook.service.http.asgi import (
    SAFE_METHODS,
    header_value,
    header_values,
    is_below,
)
from herdbook.service.settings import ServiceSettings

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""The names of the loopback interface by which every service may be addressed."""

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://(.+)")
_USUAL_PORTS: Final = {"http": "80", "https": "443"}
_OUR_SITE: Final = frozenset({"same-origin", "none"})
"""What a browser says of a request of our own pages, and of a person."""

_NO_PAGES: Final = ("/v1", "/metrics")
"""What no browser needs to be led to from elsewhere."""


class Hosts:
    """The names by which a service may be addressed.

    Args:
        settings: What it was started with.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._names = {*LOOPBACK, *_names((settings.host, *settings.hosts))}
        self._scheme = "https" if settings.secure else "http"

    def check(self, scope: Mapping[str, Any]) -> None:
        """See that a request is meant for this service, and not sent by another site.

        Raises:
            HostNotAllowedError: It names another host, none, or two.
            CrossSiteError: A page of another site sent it.
        """
        headers = header_values(scope, "host")
        host = _split(headers[0]) if len(headers) == 1 else None
        if host is None or host[0] not in self._names:
            raise HostNotAllowedError(
                "the request",
                "is addressed to a host that this service is not",
                "Use its own address, or start it with --allow-host and that name",
            )
        if self._crosses(scope, _site(self._scheme, host)):
            raise CrossSiteError(
                "the request",
                "comes from a page of another site",
                "Use Herdbook's own pages, or a program with a token",
            )

    def _crosses(self, scope: Mapping[str, Any], ours: str) -> bool:
        """Return whether a browser says that another site asks."""
        safe = scope["method"] in SAFE_METHODS
        if header_values(scope, "access-control-request-method"):
            return True  # a browser asks that only on behalf of another site
        origin = header_value(scope, "origin")
        if origin is not None and not safe and _site_of(origin) != ours:
            return True
        asking = header_value(scope, "sec-fetch-site")
        if asking is None or asking in _OUR_SITE:
            return False
        return not (safe and _leads_to_a_page(scope))


def _leads_to_a_page(scope: Mapping[str, Any]) -> bool:
    """Return whether somebody followed a link to a page of ours."""
    return (
        header_value(scope, "sec-fetch-mode") == "navigate"
        and header_value(scope, "sec-fetch-dest") == "document"
        and not is_below(scope["path"], *_NO_PAGES)
    )


def _names(hosts: Iterable[str]) -> Iterator[str]:
    """Yield hosts in the form that is compared; a wildcard is no name.

    Raises:
        InvalidServiceError: One of them is no host.
    """
    for host in hosts:
        split = _split(host) or _split(f"[{host}]")
        if split is None:
            raise InvalidServiceError(
                f"{host[:100]!r}",
                "is no host by which a service can be addressed",
                "Write the name alone, as manager.example; there is no wildcard",
            )
        if not _is_wildcard(split[0]):
            yield split[0]


def _split(header: str) -> tuple[str, str] | None:
    """Return host and port of a ``Host`` header; None if it is none."""
    found = _HOST.fullmatch(header)
    if found is None:
        return None
    return _normal(found[1].strip("[]")), found[2] or ""


def _normal(host: str) -> str:
    lower = host.lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(lower))
    except ValueError:
        return lower


def _is_wildcard(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


def _site_of(origin: str) -> str | None:
    """Return the site of an ``Origin`` header; None for ``null`` and what is none."""
    found = _ORIGIN.fullmatch(origin)
    host = found and _split(found[2])
    return _site(found[1], host) if found and host else None


def _site(scheme: str, host: tuple[str, str]) -> str:
    name, port = host
    return f"{scheme}://{name}:{port or _USUAL_PORTS[scheme]}"
