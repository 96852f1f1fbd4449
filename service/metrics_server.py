"""Serve metrics on an address of their own, for programs without the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from herdbook.core import CallerError
from herdbook.core.errors.caller import listen_failure
from herdbook.service.metrics import GatewayMetrics


@contextmanager
def gateway_metrics(host: str, port: int) -> Iterator[tuple[GatewayMetrics, str]]:
    """Serve the metrics of a gateway while the block runs, from a thread.

    Everyone who reaches the address can read them.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for any free port.

    Yields:
        The metrics, and their URL.

    Raises:
        CallerError: The address cannot be listened on.
    """
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise CallerError(
            f"port {port} on {host}",
            listen_failure(error),
            "Choose another port for the metrics, or port 0 for any free port",
        ) from error
    name = f"[{host}]" if ":" in host else host
    try:
        yield metrics, f"http://{name}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
