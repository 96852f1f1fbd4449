"""Check the ``Host`` header and refuse requests from pages of other sites.

Another site can point one of its own names at this service (DNS rebinding), and its
pages can make a browser send requests to this service. The first shows in ``Host``,
the second in ``Origin`` and ``Sec-Fetch-Site``.
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
"""The names of the loopback interface; always allowed in ``Host``."""

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://(.+)")
_USUAL_PORTS: Final = {"http": "80", "https": "443"}
_OUR_SITE: Final = frozenset({"same-origin", "none"})
"""``Sec-Fetch-Site`` of requests by pages of this service, and by typed addresses."""

_NO_PAGES: Final = ("/v1", "/metrics")
"""Paths without pages: links from other sites to them are refused too."""


class Hosts:
    """The allowed values of the ``Host`` header.

    Args:
        settings: The address of the service and the additional names.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._names = {*LOOPBACK, *_names((settings.host, *settings.hosts))}
        self._scheme = "https" if settings.secure else "http"

    def check(self, scope: Mapping[str, Any]) -> None:
        """Check that a request is addressed to this service and not cross-site.

        Raises:
            HostNotAllowedError: ``Host`` is missing, repeated or not allowed.
            CrossSiteError: A page of another site sent the request.
        """
        headers = header_values(scope, "host")
        host = _split(headers[0]) if len(headers) == 1 else None
        if host is None or host[0] not in self._names:
            raise HostNotAllowedError(  # not quoted: it may be a secret, misplaced
                "the Host header",
                "is not allowed",
                "Use the address of the service, or start it with --allow-host NAME",
            )
        if self._is_cross_site(scope, _site(self._scheme, host)):
            raise CrossSiteError(
                "the request",
                "was sent by a page on another site",
                "Use Herdbook's own pages, or a program with a token",
            )

    def _is_cross_site(self, scope: Mapping[str, Any], site: str) -> bool:
        """Return whether the headers of a browser show another site as the sender."""
        safe = scope["method"] in SAFE_METHODS
        if header_values(scope, "access-control-request-method"):
            return True  # a preflight request, which browsers send cross-site only
        origin = header_value(scope, "origin")
        if origin is not None and not safe and _site_of(origin) != site:
            return True
        fetch_site = header_value(scope, "sec-fetch-site")
        if fetch_site is None or fetch_site in _OUR_SITE:
            return False
        return not (safe and _leads_to_a_page(scope))


def _leads_to_a_page(scope: Mapping[str, Any]) -> bool:
    """Return whether a request follows a link to a page."""
    return (
        header_value(scope, "sec-fetch-mode") == "navigate"
        and header_value(scope, "sec-fetch-dest") == "document"
        and not is_below(scope["path"], *_NO_PAGES)
    )


def _names(hosts: Iterable[str]) -> Iterator[str]:
    """Yield hosts in the form that is compared; a wildcard is not a name.

    Raises:
        InvalidServiceError: A name is not a valid host.
    """
    for host in hosts:
        split = _split(host) or _split(f"[{host}]")
        if split is None:
            raise InvalidServiceError(
                f"{host[:100]!r}",
                "is not a valid host name",
                "Use a plain name such as herd.example, without a wildcard",
            )
        if not _is_wildcard(split[0]):
            yield split[0]


def _split(header: str) -> tuple[str, str] | None:
    """Return host and port of a ``Host`` header; None if it is not valid."""
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
    """Return the site of an ``Origin`` header; None if it is ``null`` or not valid."""
    found = _ORIGIN.fullmatch(origin)
    host = found and _split(found[2])
    return _site(found[1], host) if found and host else None


def _site(scheme: str, host: tuple[str, str]) -> str:
    name, port = host
    return f"{scheme}://{name}:{port or _USUAL_PORTS[scheme]}"
