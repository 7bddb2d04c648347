"""One request's dealings with servers: routes, kept sessions, new sessions, and what to keep afterwards.

Source: smtp-delivery C-15 to C-28, C-38 to C-47, C-70 to C-74, R-20, R-40 to R-50.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mailq.delivery.authenticate import credentials_for
from mailq.delivery.classify import not_connected, path_too_long, source_address_unusable
from mailq.delivery.handshake import Introduction, introduce
from mailq.delivery.plan import ConnectPlan
from mailq.delivery.ports import Ports
from mailq.delivery.report import SessionReport
from mailq.delivery.session import Session
from mailq.delivery.session_cache import SessionCache
from mailq.delivery.site import Site
from mailq.delivery.transcript import trouble_in
from mailq.delivery.transfer import transfer
from mailq.envelope import CacheRule, DeliveryRequest, Protocol
from mailq.errors import ConnectFailedError, SocketPathTooLongError, SourceAddressError
from mailq.routing.destination import Destination, parse_destination
from mailq.routing.mx import NoRoute, Route
from mailq.routing.route import find_route
from mailq.settings import Settings
from mailq.smtp.sasl import Credentials
from mailq.status import Endpoint, RecipientId, Scope

LOOP_PORT = 25


@contextmanager
def _closed_on_error(session: Session) -> Iterator[None]:
    """Leave no socket behind, and send no final dot, when our own side fails."""
    try:
        yield
    except BaseException:
        session.close()
        raise


class Caller:
    """Finds, opens, uses and keeps the sessions of one request."""

    def __init__(self, request: DeliveryRequest, *, ports: Ports, settings: Settings, sessions: SessionCache) -> None:
        """Deal for *request*."""
        self._request = request
        self._ports = ports
        self._settings = settings
        self._sessions = sessions
        self._recipients = {r.id: r for r in request.recipients}
        self._rule = CacheRule()
        self._label = ""
        self._reused: set[str] = set()
        self._destination: Destination | None = None
        self._site_text = ""
        self._best_preference = 0

    def find_route(self, site: Site) -> Route | NoRoute:
        """Resolve *site* to servers in the order of trying.

        Raises:
            DestinationSyntaxError: The site does not parse.
        """
        self._site_text = site.text
        path = site.socket_path
        if path is not None:
            self._destination = None
            endpoint = Endpoint(host=self._settings.myhostname, address=path, port=None)
            return Route(endpoints=(endpoint,), best_preference=0, last_site=True)
        lmtp = self._request.protocol is Protocol.LMTP
        service = self._settings.lmtp_tcp_port if lmtp else self._settings.tcp_port
        self._destination = parse_destination(site.text, default_service=service)
        return find_route(
            self._destination,
            resolver=self._ports.resolver,
            own_addresses=self._ports.own_addresses,
            settings=self._settings,
            rng=self._ports.rng,
            protocol=self._request.protocol,
        )

    def plan(self, site: Site, route: Route) -> ConnectPlan:
        """Return the search through the route's servers."""
        self._best_preference = route.best_preference
        if site.first:
            self._rule = self._cache_rule()
            self._label = site.text if self._rule.load or self._rule.store else ""
        plan = ConnectPlan(
            route.endpoints,
            address_limit=self._settings.mx_address_limit,
            session_limit=self._settings.mx_session_limit,
        )
        plan.strike(self._reused)
        return plan

    def kept_sessions(self, plan: ConnectPlan) -> Iterator[Session]:
        """Yield live kept sessions: one by destination, then those of the best servers. Source: R-41, R-42."""
        if not self._rule.load:
            return
        if self._label and plan.waiting:
            session = self._sessions.take_by_destination(self._destination_key())
            if session is not None and self._alive(session):
                plan.reused(session.endpoint)
                yield session
        for endpoint in plan.waiting:
            if endpoint.preference != self._best_preference or endpoint not in plan.waiting:
                continue
            session = self._take(endpoint)
            if session is not None:
                plan.reused(endpoint)
                yield session

    def call(self, endpoint: Endpoint, pending: Sequence[RecipientId], *, plaintext: bool) -> SessionReport:
        """Hold a session with *endpoint*: a kept one of a backup server, else a new one."""
        if self._rule.load and endpoint.preference != self._best_preference:
            kept = self._take(endpoint)
            if kept is not None:
                return self.converse(kept, pending)
        try:
            connection = self._ports.connector.connect(endpoint, timeout_seconds=self._connect_seconds())
        except SocketPathTooLongError:
            return SessionReport(failure=path_too_long(endpoint))
        except SourceAddressError:
            return SessionReport(failure=source_address_unusable(endpoint))
        except ConnectFailedError as error:
            return SessionReport(failure=not_connected(endpoint, str(error)))
        ports = self._ports
        session = Session(
            connection,
            endpoint,
            clock=ports.clock,
            settings=self._settings,
            hooks=ports.hooks,
            key=self._endpoint_key(endpoint),
        )
        with _closed_on_error(session):
            failed = introduce(session, self._introduction(endpoint, plaintext=plaintext))
        if failed is not None:
            return self._leave(session, failed)
        return self.converse(session, pending)

    def converse(self, session: Session, pending: Sequence[RecipientId]) -> SessionReport:
        """Carry out the transaction on a session that is ready, then keep or end the session."""
        recipients = tuple(self._recipients[r] for r in pending)
        retry = self._may_fall_back(session.endpoint)
        with _closed_on_error(session):
            report = transfer(session, self._request, recipients, ports=self._ports, may_retry_plaintext=retry)
        return self._leave(session, report)

    def _leave(self, session: Session, report: SessionReport) -> SessionReport:
        """Keep or end the session; return *report* with the trouble it met."""
        lines = session.transcript.take()
        trouble = trouble_in(report, lines, session.endpoint, garbled=session.garbled)
        keep = self._rule.store and session.keepable
        site_failure = report.failure is not None and report.failure.scope is Scope.SERVER
        label = self._label
        if label and not site_failure:
            # The first session that the site was not to blame for is the one this destination leads to.
            self._label = ""
        if keep and not site_failure:
            key = self._destination_key(label) if label else None
            self._sessions.keep(session, key)
        else:
            session.quit()
        return report if trouble is None else replace(report, trouble=trouble)

    def _take(self, endpoint: Endpoint) -> Session | None:
        session = self._sessions.take_by_endpoint(self._endpoint_key(endpoint))
        return session if session is not None and self._alive(session) else None

    def _alive(self, session: Session) -> bool:
        if not session.probe():
            session.close()
            return False
        self._reused.add(session.endpoint.address)
        return True

    def _cache_rule(self) -> CacheRule:
        settings, destination = self._settings, self._destination
        domain = self._site_text if destination is None else destination.host
        if domain in settings.connection_cache_destinations:
            return CacheRule(load=True, store=True)
        return self._request.cache if settings.connection_cache_on_demand else CacheRule()

    def _destination_key(self, label: str = "") -> tuple[str, ...]:
        return (self._request.protocol.value, label or self._label)

    def _endpoint_key(self, endpoint: Endpoint) -> tuple[str, ...]:
        level = self._settings.tls_security_level
        # An authenticated session is for those with the same credentials only. Source: smtp-delivery.
        login = (self._site_text, endpoint.host) if self._settings.sasl_password_maps else ()
        return (self._request.protocol.value, endpoint.address, str(endpoint.port), level, *login)

    def _introduction(self, endpoint: Endpoint, *, plaintext: bool) -> Introduction:
        smtp = self._request.protocol is Protocol.SMTP
        port = None if self._destination is None else self._destination.port
        return Introduction(
            protocol=self._request.protocol,
            nexthop=self._request.nexthop,
            best=endpoint.preference == self._best_preference,
            detect_loop=smtp and port == LOOP_PORT,
            tls_level="none" if plaintext else self._tls_level(endpoint),
            may_retry_plaintext=self._may_fall_back(endpoint),
            credentials=self._credentials(endpoint),
        )

    def _credentials(self, endpoint: Endpoint) -> Credentials | None:
        return credentials_for(self._settings, host=endpoint.host, nexthop=self._site_text)

    def _tls_level(self, endpoint: Endpoint) -> str:
        level = self._settings.tls_security_level
        # A local socket needs no opportunistic encryption. Source: smtp-delivery C-92.
        return "none" if endpoint.port is None and level == "may" else level

    def _may_fall_back(self, endpoint: Endpoint) -> bool:
        """Whether a TLS failure may be answered by plaintext: opportunistic, deferred before, no password to lose.

        Source: smtp-delivery P-30.
        """
        waited = self._request.active_at - self._request.arrived_at
        opportunistic = self._settings.tls_security_level == "may" and self._credentials(endpoint) is None
        return opportunistic and waited >= self._settings.minimal_backoff_time

    def _connect_seconds(self) -> float:
        lmtp = self._request.protocol is Protocol.LMTP
        timeout = self._settings.lmtp_connect_timeout if lmtp else self._settings.connect_timeout
        return timeout.total_seconds()
