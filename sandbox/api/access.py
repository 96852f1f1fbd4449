"""Which hosts and origins may use the server, and what browsers are told about it.

Invariant: a page of another site gets neither an answer nor a header that allows one.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from herdbook.sandbox.api.responses import WITHOUT_LENGTH, Answer

_LOCAL_HOST: Final = re.compile(
    r"localhost|.*\.(localhost|local|internal)", re.IGNORECASE
)
_LOCAL_ORIGIN: Final = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:\d+)?"
    r"|(app|file|tauri|vscode-webview|vscode-file)://.*"
)
_PREFLIGHT: Final = {
    "access-control-allow-headers": "Authorization,Content-Type,User-Agent,Accept,"
    "X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
    "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,"
    "X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,"
    "X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,"
    "X-Stainless-Timeout",
    "access-control-allow-methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "access-control-max-age": "43200",
    "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
}


def check(method: str, headers: dict[str, str]) -> Answer | None:
    """Return the answer to a request that no endpoint gets; None for all others."""
    host = headers.get("host", "")
    origin = cross_origin(headers)
    if origin and not _LOCAL_ORIGIN.fullmatch(origin):
        return Answer(status=403)
    if origin and method == "OPTIONS":
        return Answer(status=204, headers=_PREFLIGHT | WITHOUT_LENGTH)
    bare = re.sub(r":\d+$", "", host).strip("[]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if bare and not _LOCAL_HOST.fullmatch(bare):
            return Answer(status=403)
        return (
            Answer(status=204, headers=WITHOUT_LENGTH) if method == "OPTIONS" else None
        )
    local = address.is_private or address.is_loopback or address.is_unspecified
    return None if local else Answer(status=403)


def cross_origin(headers: dict[str, str]) -> str:
    """Return the origin of a request from another site; empty for none."""
    origin, host = headers.get("origin", ""), headers.get("host", "")
    return "" if origin in {f"http://{host}", f"https://{host}"} else origin


def shared_with(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read an answer."""
    origin = cross_origin(headers)
    if not origin or not _LOCAL_ORIGIN.fullmatch(origin):
        return {}
    return {"access-control-allow-origin": origin, "vary": "Origin"}
