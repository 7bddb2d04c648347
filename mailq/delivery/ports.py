"""The world as the routine sees it: five small protocols, the resolver's being declared in routing.

Each has a fake in ``tests/fakes`` and one contract suite that runs on the
fake and on the real thing.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import BinaryIO, Protocol

from mailq.delivery.hooks import NO_HOOKS, Hooks
from mailq.envelope import DeliveryRequest
from mailq.routing.route import Resolver
from mailq.security import TlsPolicy, TlsResult
from mailq.smtp.credentials import AccessToken, Credentials, TokenRequest
from mailq.smtp.sasl_failures import AuthFailure
from mailq.status import Endpoint
from mailq.tls.server import PolicyProblem, Server


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

    def start_tls(self, policy: TlsPolicy, *, host: str, timeout_seconds: float) -> TlsResult:
        """Encrypt from here on, and say how the server proved who it is.

        A server that proved nothing is no error here: the caller looks at ``verified_by``. Source: P-26.

        Args:
            policy: What is asked for; never of level ``none``.
            host: The server's name, for the TLS hello where the policy gives none.
            timeout_seconds: For the whole handshake.

        Raises:
            TlsHandshakeError: The handshake failed; the connection is of no use any more.
        """

    def channel_binding(self, kind: str) -> bytes | None:
        """Return what ties a log-in to this TLS session; None where there is none of the *kind*. Source: RFC 5929.

        Args:
            kind: ``tls-unique``, ``tls-server-end-point`` or ``tls-exporter``.
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


Fence = Callable[[], None]
"""Raises :class:`mailq.errors.LeaseLostError` where the mail may be somebody else's by now."""


def no_fence() -> None:
    """Let everything pass."""


def nobody_follows() -> None:
    """Name no request."""


class MessageBodies(Protocol):
    """Opens the content of messages."""

    def open(self, queue_id: str) -> AbstractContextManager[BinaryIO]:
        """Open the RFC 5322 content, CRLF line ends, for one reading."""


class LoginTable(Protocol):
    """Credentials that are looked up, such as those of a file."""

    def get(self, key: str) -> Credentials | None:
        """Return the credentials of *key*, lower case; None where there are none.

        Raises:
            HookFailedError: The table cannot be read now.
        """


class Tokens(Protocol):
    """Access tokens."""

    def get(self, request: TokenRequest) -> AccessToken:
        """Return a token that holds now.

        Raises:
            HookFailedError: There is none to be had.
        """

    def reject(self, request: TokenRequest, token: AccessToken) -> None:
        """Forget *token*: the server refused it. A newer one stays."""


class AuthFailures(Protocol):
    """Refused log-ins on record, for all workers. Source: smtp-delivery P-68."""

    def find(self, host: str, user: str) -> AuthFailure | None:
        """Return the latest refusal of *user* at *host*, lower case; None where there is none.

        Raises:
            InfrastructureError: The record cannot be read.
        """

    def note(self, failure: AuthFailure, *, keep: timedelta) -> None:
        """Put *failure* on record instead of an earlier one, and drop what was noted longer than *keep* before it.

        Raises:
            InfrastructureError: The record cannot be written.
        """

    def forget(self, host: str, user: str) -> None:
        """Drop what is on record; harmless where nothing is.

        Raises:
            InfrastructureError: The record cannot be written.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a server was come to.

    Attributes:
        endpoint: The server.
        hosts: Names of all servers of its site.
        first: The site is the first that the nexthop names, and no fallback.
    """

    endpoint: Endpoint
    hosts: tuple[str, ...]
    first: bool = True


class Passage(Protocol):
    """The right to hold one connection."""

    @property
    def most_messages(self) -> int:
        """Return for how many messages the connection may be used; 0 is no limit."""

    def leave(self) -> None:
        """Note that the connection is closed, or did not come about; never raises."""


class Gatekeeper(Protocol):
    """Says how many connections there may be, over all workers."""

    def admit(self, way: Way) -> Passage:
        """Return the right to connect to a server.

        Raises:
            NoRoomError: Not now: the whole delivery ends, and what is not settled was not tried.
            InfrastructureError: Whoever counts cannot be reached.
        """

    def claim_on(self, passage: Passage) -> int:
        """Return how well a kept session, which came about by *passage*, may be used: 2 before 1; 0: it may not."""

    def take_over(self, passage: Passage) -> Passage | None:
        """Return the right to use a kept session, which came about by *passage*; None: it is to be closed."""


class TlsPolicies(Protocol):
    """Knows which encryption a server must have."""

    def choose(self, server: Server) -> TlsPolicy | PolicyProblem:
        """Return the policy for *server* now, or why it must be passed over; never raises."""


class TlsSessions(Protocol):
    """Counts how encryption went, for TLS reports."""

    def note(self, policy: TlsPolicy, result: TlsResult, endpoint: Endpoint) -> None:
        """Count a new session with *endpoint*, or that it was passed over; never raises."""


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
        fence: Asked before each transaction, and again before the final dot.
        tls: What decides about TLS; None: the settings and the resolver, without MTA-STS.
        tls_sessions: None: they are not counted. Source: smtp-delivery C-20.
        login_tables: Asked after the entries of ``sasl_password_maps``, in their order.
        tokens: None: nobody logs in by access token.
        auth_failures: None: refusals are not remembered.
        gate: None: nobody counts connections.
        following: Asked just before the end of a content is sent, and after the fence: the request that is delivered
            next, by this thread and with this very object, if its commands may be sent now, which means that no limit
            keeps it; its content waits for its turn. None: nothing may be. It need not be delivered after all, nor
            does it follow on every session: see :mod:`mailq.delivery.following`.
    """

    clock: Clock
    resolver: Resolver
    connector: Connector
    bodies: MessageBodies
    rng: Random
    own_addresses: frozenset[str] = frozenset()
    hooks: Hooks = NO_HOOKS
    fence: Fence = no_fence
    tls: TlsPolicies | None = None
    tls_sessions: TlsSessions | None = None
    login_tables: tuple[LoginTable, ...] = ()
    tokens: Tokens | None = None
    auth_failures: AuthFailures | None = None
    gate: Gatekeeper | None = None
    following: Callable[[], DeliveryRequest | None] = nobody_follows
