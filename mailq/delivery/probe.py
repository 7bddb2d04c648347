"""Look at a destination's servers as a delivery would see them, and send no mail.

The same route, the same policy for each server and the same handshake as in
the routine; then QUIT. Kept sessions are not used, and nothing is logged in to.

Invariant: MAIL is never said; every wait is bounded by the settings' timeouts.

Source: smtp-delivery C-15 to C-36, P-20 to P-33.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mailq.delivery.handshake import Introduction, introduce
from mailq.delivery.policy import PolicyBook
from mailq.delivery.ports import Ports
from mailq.delivery.session import Session
from mailq.envelope import DeliveryRequest, Protocol
from mailq.errors import ConnectFailedError, SettingError
from mailq.routing.destination import parse_destination
from mailq.routing.mx import NoRoute
from mailq.routing.route import find_route
from mailq.security import TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.smtp.certificate import Certificate
from mailq.status import Endpoint
from mailq.tls.server import PolicyProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """One server.

    Attributes:
        server: ``HOST[ADDR]:PORT``.
        preference: Of its MX record.
        level: Of encryption that it must have.
        source: What decided so.
        match: Names of which the certificate must bear one.
        tls: What the session's encryption was; None: it did not come so far.
        names: Of its certificate.
        expires_at: The certificate's; None: none was seen.
        extensions: EHLO keywords, in the end.
        problem: Why no mail would go there now; empty: some would.
    """

    server: str
    preference: int
    level: str
    source: str
    match: Sequence[str] = ()
    tls: TlsResult | None = None
    names: Sequence[str] = ()
    expires_at: datetime | None = None
    extensions: Sequence[str] = ()
    problem: str = ""

    @property
    def requires_tls(self) -> bool:
        """Whether it offers REQUIRETLS. Source: RFC 8689."""
        return "REQUIRETLS" in self.extensions


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationView:
    """One destination.

    Attributes:
        nexthop: As asked for.
        validated: DNSSEC vouches for its MX records; None: it has none.
        servers: In the order of trying.
        problem: Why there is no server; empty: there is one.
    """

    nexthop: str
    validated: bool | None = None
    servers: Sequence[ServerView] = ()
    problem: str = ""

    @property
    def deliverable(self) -> bool:
        """Whether mail would go to one of the servers."""
        return any(not server.problem for server in self.servers)


def probe(nexthop: str, *, ports: Ports, settings: Settings, require_tls: bool = False) -> DestinationView:
    """Look at the servers of *nexthop*, each of which is connected to in turn.

    Args:
        nexthop: One destination.
        ports: The world.
        settings: As for a delivery; ``myhostname`` is set.
        require_tls: As for a message that requires TLS.

    Raises:
        DestinationSyntaxError: The destination does not parse.
    """
    destination = parse_destination(nexthop, default_service=settings.tcp_port)
    route = find_route(
        destination,
        resolver=ports.resolver,
        own_addresses=ports.own_addresses,
        settings=settings,
        rng=ports.rng,
        protocol=Protocol.SMTP,
    )
    if isinstance(route, NoRoute):
        return DestinationView(nexthop=nexthop, problem=route.failure.reason)
    book = PolicyBook(_request(nexthop, ports, require_tls=require_tls), ports=ports, settings=settings)
    book.at_site(nexthop, destination, route)
    limit = settings.mx_address_limit or len(route.endpoints)
    servers = [_look_at(one, book, ports, settings) for one in route.endpoints[:limit]]
    return DestinationView(nexthop=nexthop, validated=route.validated, servers=servers)


def _request(nexthop: str, ports: Ports, *, require_tls: bool) -> DeliveryRequest:
    now = ports.clock.now()
    return DeliveryRequest(
        queue_id="",
        nexthop=nexthop,
        sender="",
        recipients=(),
        size_bytes=0,
        arrived_at=now,
        active_at=now,
        require_tls=require_tls,
    )


def _look_at(endpoint: Endpoint, book: PolicyBook, ports: Ports, settings: Settings) -> ServerView:
    server = book.server(endpoint)
    chosen = book.choose(server)
    policy = chosen.policy if isinstance(chosen, PolicyProblem) else chosen
    view = ServerView(
        server=str(endpoint),
        preference=endpoint.preference,
        level=policy.level.value,
        source=policy.source,
        match=policy.match,
        problem=chosen.reason if isinstance(chosen, PolicyProblem) else "",
    )
    return view if view.problem else _converse(view, endpoint, policy, ports, settings)


def _converse(view: ServerView, endpoint: Endpoint, policy: TlsPolicy, ports: Ports, settings: Settings) -> ServerView:
    try:
        connection = ports.connector.connect(endpoint, timeout_seconds=settings.connect_timeout.total_seconds())
    except ConnectFailedError as error:
        return replace(view, problem=str(error))
    session = Session(connection, endpoint, clock=ports.clock, settings=settings, policy=policy)
    try:
        report = introduce(session, _introduction(view))
    except SettingError as error:
        session.close()
        return replace(view, problem=str(error))
    except BaseException:
        session.close()
        raise
    failure = None if report is None else report.failure
    names, expires_at = _certificate(getattr(connection, "certificate", None))
    session.quit()
    return replace(
        view,
        tls=session.tls,
        names=names,
        expires_at=expires_at,
        extensions=tuple(sorted(session.extensions.keywords)),
        problem="" if failure is None else failure.reason,
    )


def _introduction(view: ServerView) -> Introduction:
    return Introduction(
        protocol=Protocol.SMTP,
        nexthop=view.server,
        best=True,
        detect_loop=False,
        plaintext=False,
        may_retry_plaintext=False,
    )


def _certificate(der: bytes | None) -> tuple[Sequence[str], datetime | None]:
    if der is None:
        return (), None
    certificate = Certificate(der)
    try:
        return certificate.names, certificate.parsed.not_valid_after_utc.astimezone(UTC)
    except ValueError:
        return (), None
