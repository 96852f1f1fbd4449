"""Wrong credentials, counted by the address that they came from."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from herdbook.service.errors import TooManyFailuresError

MOST_ADDRESSES: Final = 4096
"""Addresses that are remembered; the one that failed longest ago is forgotten."""


class FailedLogins:
    """How often each address failed of late. It holds bounded memory.

    Args:
        most: How many failures an address has ...
        within_s: ... in so many seconds, before nothing of it is looked at.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        *,
        most: int,
        within_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._within_s = within_s
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def check(self, address: str) -> None:
        """See that what comes from an address may be looked at.

        Raises:
            TooManyFailuresError: It failed too often of late.
        """
        times = self._times.get(_network(address))
        if times is None or len(times) < self._most:
            return
        left = times[0] + self._within_s - self._clock()
        if left > 0:
            raise TooManyFailuresError(math.ceil(left))

    def add(self, address: str) -> None:
        """Count a failure."""
        network = _network(address)
        times = self._times.setdefault(network, deque(maxlen=self._most))
        times.append(self._clock())
        self._times.move_to_end(network)
        while len(self._times) > MOST_ADDRESSES:
            self._times.popitem(last=False)


def _network(address: str) -> str:
    """Return what counts as one address: of IPv6 the half that a site is given."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
