"""The page where Prometheus reads metrics.

Whoever cannot show it is no worse at his work, so that is logged and no error;
:attr:`MetricsPage.port` tells.
"""

import logging
import threading
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from mailq.errors import SettingError

log = logging.getLogger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_LARGEST_PORT: Final = 65_535


class MetricsPage:
    """The page ``/metrics``, from :meth:`open` to :meth:`close`.

    Args:
        registry: What is shown.
        address: Of ``metrics_address``; empty: nothing is opened.

    Raises:
        SettingError: The address does not parse.
    """

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        self._registry = registry
        self._where = split_address(address)
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 where it does not."""
        return 0 if self._server is None else self._server.server_port

    def open(self) -> None:
        """Listen; where that cannot be, the log says so."""
        if self._where is None:
            return
        host, port = self._where
        try:
            opened: Any = start_http_server(port, host, registry=self._registry)
        except OSError as error:
            log.error("The metrics cannot be shown at %s:%d: %s", host, port, error.strerror)  # noqa: TRY400 - the text says it all
            return
        self._server, self._thread = opened
        fields = {"event": "metrics_shown", "port": self.port}
        log.info("Metrics are at http://%s:%d/metrics", host, self.port, extra=fields)

    def close(self) -> None:
        """Stop listening; harmless when repeated."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join()


def split_address(text: str) -> tuple[str, int] | None:
    """Return host and port of ``host:port``, ``[IPv6]:port`` or ``:port``, which is on loopback; None of no text.

    Raises:
        SettingError: It is none of these.
    """
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= _LARGEST_PORT):
        raise SettingError(f"setting 'metrics_address' must be host:port or :port, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or _LOOPBACK, int(port)


def with_port_behind(address: str, number: int) -> str:
    """Return *address* with the port *number* behind its own, where it names one: each process has a page.

    Raises:
        SettingError: It does not parse, or there is no such port.
    """
    where = split_address(address)
    if where is None or where[1] == 0 or number == 0:
        return address
    port = where[1] + number
    if port > _LARGEST_PORT:
        raise SettingError(f"setting 'metrics_address' leaves no port for worker process {number + 1}: {address!r}")
    return f"{address.rpartition(':')[0]}:{port}"
