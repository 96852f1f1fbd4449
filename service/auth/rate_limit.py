"""A limit on unknown credentials, per client address."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from herdbook.service.errors import TooManyFailuresError

MOST_ADDRESSES: Final = 4096
"""Maximum number of remembered addresses; the oldest failure is dropped first."""


class FailedLogins:
    """Counts recent failures per address, in bounded memory.

    Args:
        most: Failures that one address may have within the period.
        within_s: Length of the period, in seconds.
        clock: A monotonic clock, in seconds.
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
        """Check that an address may try a credential.

        Raises:
            TooManyFailuresError: The address has used up its failures.
        """
        times = self._times.get(_network(address))
        if times is None or len(times) < self._most:
            return
        left = times[0] + self._within_s - self._clock()
        if left > 0:
            raise TooManyFailuresError(math.ceil(left))

    def add(self, address: str) -> None:
        """Count a failure of an address."""
        network = _network(address)
        times = self._times.setdefault(network, deque(maxlen=self._most))
        times.append(self._clock())
        self._times.move_to_end(network)
        while len(self._times) > MOST_ADDRESSES:
            self._times.popitem(last=False)


def _network(address: str) -> str:
    """Return what counts as one address: for IPv6 the /64 that one site is given."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
