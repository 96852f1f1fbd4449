"""Where the server is: the setting OLLAMA_HOST, read by Ollama's own rules.

What Ollama tolerates is tolerated here, so that one setting serves both. Two
things differ, since Ollama also binds to that address and we only connect: an
address that means *every interface* becomes the loopback, and what nobody can
connect to is refused instead of tried.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import quote, urlsplit

from herdbook.core.errors import InvalidAddressError
from herdbook.core.logs import Logger

DEFAULT_PORT: Final = 11434
_SCHEME_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"\w[\w.-]*")

_log = Logger("herdbook.host")


def base_url(setting: str | None = None) -> str:
    """Return the server's URL, without a slash at its end.

    Args:
        setting: The value of OLLAMA_HOST, or what stands for it; None or an empty
            one is ``127.0.0.1:11434``.

    Raises:
        InvalidAddressError: Nobody can connect to that.
    """
    text = (setting or "").strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
        if text == "ollama.com":
            scheme, rest = "https", "ollama.com:443"
    scheme = scheme.lower()
    if scheme not in _SCHEME_PORTS:
        raise InvalidAddressError(text, reason=f"{scheme}:// is not spoken here")
    authority, _, path = rest.partition("/")
    if "@" in authority:
        # The text is not repeated: what stands before the @ is a secret.
        raise InvalidAddressError(f"{scheme}://…@…", reason="it names a user")
    default_port = _SCHEME_PORTS[scheme] if separator else DEFAULT_PORT
    host, port_text = _split(authority)
    port = _port(port_text, default_port)
    if port == 0:
        raise InvalidAddressError(text, reason="port 0 is no place to connect to")
    address = f"{scheme}://{_connectable(host, text)}:{port}"
    return f"{address}/{quote(path, safe='/%')}".rstrip("/")


def _split(authority: str) -> tuple[str, str | None]:
    """Part the host from the port as Go's ``net.SplitHostPort`` does."""
    host, colon, port = authority.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if colon and (bracketed or ":" not in host) and "]" not in port:
        return host.removeprefix("[").removesuffix("]"), port
    return authority.removeprefix("[").removesuffix("]"), None


def _port(text: str | None, default: int) -> int:
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535:
        return int(text)
    _log.warning("port_ignored", port=text, default=default)
    return default


def _connectable(host: str, text: str) -> str:
    if not host:
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise InvalidAddressError(
                text, reason=f"{host!r} is no name of a host"
            ) from None
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return "[::1]" if address.is_unspecified else f"[{address}]"
    return "127.0.0.1" if address.is_unspecified else str(address)


def is_local(url: str) -> bool:
    """Return whether a server's URL is one of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
