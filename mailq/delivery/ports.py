"""The world as the routine sees it: five small protocols, the resolver's being declared in routing.

Each has a fake in ``tests/fakes`` and one contract suite that runs on the
fake and on the real thing.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import BinaryIO, Protocol

from mailq.delivery.hooks import NO_HOOKS, Hooks
from mailq.routing.route import Resolver
from mailq.status import Endpoint


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the present instant, aware, UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards, from an arbitrary origin."""


class Connection(Protocol):
    """A byte stream to one server."""

    @property
    def encrypted(self) -> bool:
        """Whether TLS is on."""

    def send(self, data: bytes, *, timeout_seconds: float) -> None:
        """Write all of *data*.

        Raises:
            ConnectionLostError: The peer is gone.
            ConnectionTimeoutError: Not all could be written within *timeout_seconds*, however much of it was.
        """

    def receive(self, *, timeout_seconds: float) -> bytes:
        """Return what has arrived, at least one byte; 0 seconds or less only looks.

        Raises:
            ConnectionLostError: End of stream, or a reset.
            ConnectionTimeoutError: Nothing arrived for *timeout_seconds*.
        """

    def start_tls(self, *, server_name: str, timeout_seconds: float) -> None:
        """Encrypt from here on.

        Raises:
            TlsHandshakeError: The handshake failed; the connection is of no use any more.
        """

    def close(self) -> None:
        """Release the socket; harmless when repeated, never raises."""


class Connector(Protocol):
    """Opens connections."""

    def connect(self, endpoint: Endpoint, *, timeout_seconds: float) -> Connection:
        """Connect to *endpoint*; 0 seconds means the operating system's limit.

        Raises:
            ConnectFailedError: ``str()`` is the operating system's text, such as ``Connection refused``.
        """


class MessageBodies(Protocol):
    """Opens the content of messages."""

    def open(self, queue_id: str) -> AbstractContextManager[BinaryIO]:
        """Open the RFC 5322 content, CRLF line ends, for one reading."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside, in one bundle.

    Attributes:
        clock: The time.
        resolver: DNS.
        connector: Sockets.
        bodies: Content of messages.
        rng: Breaks ties between servers of equal preference.
        own_addresses: IP addresses of this host; mail for them would loop. Source: smtp-delivery A-40.
        hooks: The operator's own code.
    """

    clock: Clock
    resolver: Resolver
    connector: Connector
    bodies: MessageBodies
    rng: Random
    own_addresses: frozenset[str] = frozenset()
    hooks: Hooks = NO_HOOKS
