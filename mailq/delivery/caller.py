"""One request's dealings with servers: routes, kept sessions, new sessions, and what to keep afterwards.

Source: smtp-delivery C-15 to C-28, C-38 to C-47, C-70 to C-74, R-20, R-40 to R-50.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from mailq.delivery.classify import not_connected, path_too_long, source_address_unusable
from mailq.delivery.following import goes_the_same_way
from mailq.delivery.handshake import Introduction, introduce
from mailq.delivery.login_book import LoginBook
from mailq.delivery.plan import ConnectPlan
from mailq.delivery.policy import PolicyBook, outcome_of, passed_over
from mailq.delivery.ports import Connection, Passage, Ports, Way
from mailq.delivery.report import SessionReport
from mailq.delivery.session import Session, SessionKey
from mailq.delivery.session_cache import SessionCache
from mailq.delivery.site import Site
from mailq.delivery.stopwatch import timed
from mailq.delivery.transfer import begin_behind, transfer
from mailq.envelope import CacheRule, DeliveryRequest, Protocol
from mailq.errors import ConnectFailedError, SocketPathTooLongError, SourceAddressError
from mailq.routing.destination import Destination, parse_destination
from mailq.routing.mx import NoRoute, Route
from mailq.routing.route import find_route
from mailq.security import TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.status import Endpoint, Failure, RecipientId, Scope, SessionFacts
from mailq.tls.server import PolicyProblem

LOOP_PORT = 25
_KEEP_NOTHING = CacheRule()


@contextmanager
def _closed_on_error(session: Session) -> Iterator[None]:
    """Leave no socket behind, and send no final dot, when our own side fails."""
    try:
        yield
    except BaseException:
        session.close()
        raise


@contextmanager
def _left_on_error(passage: Passage | None) -> Iterator[None]:
    """Give the right to connect back when our own side fails."""
    try:
        yield
    except BaseException:
        if passage is not None:
            passage.leave()
        raise


class Caller:
    """Finds, opens, uses and keeps the sessions of one request."""

    def __init__(self, request: DeliveryRequest, *, ports: Ports, settings: Settings, sessions: SessionCache) -> None:
        """Deal for *request*."""
        self._request = request
        self._ports = ports
        self._settings = settings
        self._sessions = sessions
        self._rule = _KEEP_NOTHING
        self._label = ""
        self._parting: Callable[[], None] | None = None
        self._reused: set[str] = set()
        self._logins = LoginBook(request, ports=ports, settings=settings)
        self._book = PolicyBook(request, ports=ports, settings=settings, logs_in=self._logins.is_expected)
        self._destination: Destination | None = None
        self._site_text = ""
        self._best_preference = 0
        self._waited: dict[str, float] = {}
        self._route: Route | None = None
        self._first = True

    def find_route(self, site: Site) -> Route | NoRoute:
        """Resolve *site* to servers in the order of trying.

        Raises:
            DestinationSyntaxError: The site does not parse.
        """
        self._site_text = site.text
        self._logins.at_site(site.text)
        self._waited = {}
        path = site.socket_path
        if path is not None:
            self._destination = None
            endpoint = Endpoint(host=self._settings.myhostname, address=path, port=None)
            local = Route(endpoints=(endpoint,), best_preference=0, last_site=True)
            self._book.at_site(site.text, None, local)
            return local
        lmtp = self._request.protocol is Protocol.LMTP
        service = self._settings.lmtp_tcp_port if lmtp else self._settings.tcp_port
        self._destination = parse_destination(site.text, default_service=service)
        began = self._ports.clock.monotonic()
        route = find_route(
            self._destination,
            resolver=self._ports.resolver,
            own_addresses=self._ports.own_addresses,
            settings=self._settings,
            rng=self._ports.rng,
            protocol=self._request.protocol,
        )
        self._waited["dns"] = self._ports.clock.monotonic() - began
        self._book.at_site(site.text, self._destination, route)
        if isinstance(route, NoRoute):
            return replace(route, failure=replace(route.failure, facts=SessionFacts(seconds=self._waited)))
        return route

    def plan(self, site: Site, route: Route) -> ConnectPlan:
        """Return the search through the route's servers."""
        self._best_preference = route.best_preference
        self._route = route
        self._first = site.first
        if site.first:
            self._rule = self._cache_rule()
            self._label = site.text if self._rule.load or self._rule.store else ""
        plan = ConnectPlan(
            route.endpoints,
            address_limit=self._settings.mx_address_limit,
            session_limit=self._settings.mx_session_limit,
        )
        if self._reused:
            plan.strike(self._reused)
        return plan

    def kept_sessions(self, plan: ConnectPlan) -> Iterator[Session]:
        """Yield kept sessions: one by destination, then those of the best servers. Source: R-41, R-42.

        Before them comes the one on which the request's commands are ahead.
        """
        session = self._sessions.take_reserved(self._request)
        if session is not None:
            if self._rule.load and plan.waiting and self._book.still_holds(session) and self._may_serve(session):
                yield session
                self._count_use(session, plan)
            else:
                session.close()
        if not self._rule.load:
            return
        if self._label and plan.waiting:
            session = self._sessions.take_by_destination(self._destination_key(), self._ports.gate)
            if session is not None and not self._book.still_holds(session):
                session.quit()
            elif session is not None and self._may_serve(session):
                yield session
                self._count_use(session, plan)
        for endpoint in plan.waiting:
            if endpoint.preference != self._best_preference or endpoint not in plan.waiting:
                continue
            session = self._take(endpoint)
            if session is not None:
                yield session
                self._count_use(session, plan)

    def call(self, endpoint: Endpoint, pending: Sequence[RecipientId], *, plaintext: bool) -> SessionReport:
        """Hold a session with *endpoint*: a kept one of a backup server, else a new one."""
        server = self._book.server(endpoint)
        policy = self._book.choose(server)
        if isinstance(policy, PolicyProblem):
            self._book.note(policy.policy, outcome_of(policy), endpoint)
            return passed_over(policy, endpoint)
        if plaintext:
            policy = replace(policy, level=TlsLevel.NONE)
        if self._rule.load and endpoint.preference != self._best_preference:
            kept = self._take(endpoint)
            report = None if kept is None else self.converse(kept, pending)
            if report is not None and not report.stale:
                return report
        ports, seconds = self._ports, dict(self._waited)
        passage = None if ports.gate is None else ports.gate.admit(self._way(endpoint))
        with timed(seconds, "connect", ports.clock), _left_on_error(passage):
            connection = self._connect(endpoint)
        if isinstance(connection, Failure):
            if passage is not None:
                passage.leave()
            return SessionReport(failure=connection).with_facts(SessionFacts(seconds=seconds))
        session = Session(
            connection,
            endpoint,
            clock=ports.clock,
            settings=self._settings,
            hooks=ports.hooks,
            key=self._endpoint_key(endpoint, policy),
            policy=policy,
            server=server,
            passage=passage,
        )
        session.seconds = seconds
        with _closed_on_error(session), timed(seconds, "handshake", ports.clock):
            failed = introduce(session, self._introduction(session, plaintext=plaintext))
        self._book.note(policy, session.tls, endpoint)
        if failed is not None:
            return self._leave(session, failed)
        return self.converse(session, pending)

    def converse(self, session: Session, pending: Sequence[RecipientId]) -> SessionReport:
        """Carry out the transaction on a session that is ready, then keep or end the session, or close a stale one."""
        request, ports = self._request, self._ports
        recipients = request.recipients
        if len(pending) < len(recipients):
            waiting = frozenset(pending)
            recipients = tuple(r for r in recipients if r.id in waiting)
        retry = session.encrypted and self._may_fall_back(session.endpoint, session.policy)
        session.seconds = self._waited | session.seconds
        follows = session.following is not None
        began = ports.clock.monotonic()
        try:
            ports.fence()
            report = transfer(
                session,
                request,
                recipients,
                ports=ports,
                may_retry_plaintext=retry,
                follow=partial(self._follow, session),
            )
        except BaseException:
            # No socket is left behind, and no final dot sent, when our own side fails.
            session.close()
            raise
        session.seconds["transfer"] = ports.clock.monotonic() - began
        if report.stale:
            session.stale = True
            session.close()
            if follows and not session.in_step:
                self._sessions.avoid_following(session.endpoint.address)
            return report
        if session.reused:
            self._reused.add(session.endpoint.address)
        return self._leave(session, report)

    def part(self) -> None:
        """Keep or end the session that was reported on last; taking leave of a server may take long."""
        parting, self._parting = self._parting, None
        if parting is not None:
            parting()

    def _leave(self, session: Session, report: SessionReport) -> SessionReport:
        """Decide whether to keep the session; return *report* with what is to be known of it."""
        facts = SessionFacts(
            tls=session.tls,
            seconds=session.seconds,
            login=session.login,
            reused=session.reused,
            stages=session.stages,
            number=session.number,
        )
        session.seconds, session.stages = {}, {}
        report = session.transcript.conclude(report, facts, endpoint=session.endpoint, garbled=session.garbled)
        keep = self._rule.store and session.keepable
        site_failure = report.failure is not None and report.failure.scope is Scope.SERVER
        label = self._label
        if label and not site_failure:
            # The first session that the site was not to blame for is the one this destination leads to.
            self._label = ""
        if keep and not site_failure and session.following is not None:
            self._parting = partial(self._sessions.reserve, session, session.following.request)
        elif keep and not site_failure:
            key = self._destination_key(label) if label else None
            self._parting = partial(self._sessions.keep, session, key)
        else:
            self._parting = session.quit
        return report

    def _follow(self, session: Session) -> bytes:
        """Begin the next request's transaction where it may be; return its commands. Source: RFC 2920 §3.1."""
        # The session must be one that the next request would find by this destination.
        if not (self._label and self._rule.load and self._rule.store and session.keepable):
            return b""
        if not (session.extensions.offers("PIPELINING") and self._sessions.may_follow(session.endpoint.address)):
            return b""
        following = self._ports.following()
        by_sender = self._settings.sender_dependent_authentication
        if following is None or not goes_the_same_way(self._request, following, by_sender=by_sender):
            return b""
        session.following = begin_behind(session, following, self._ports)
        return b"" if session.following is None else session.following.said.data

    def _connect(self, endpoint: Endpoint) -> Connection | Failure:
        try:
            return self._ports.connector.connect(endpoint, timeout_seconds=self._connect_seconds())
        except SocketPathTooLongError:
            return path_too_long(endpoint)
        except SourceAddressError:
            return source_address_unusable(endpoint)
        except ConnectFailedError as error:
            return not_connected(endpoint, str(error))

    def _take(self, endpoint: Endpoint) -> Session | None:
        policy = self._book.choose(self._book.server(endpoint))
        if isinstance(policy, PolicyProblem):
            return None
        session = self._sessions.take_by_endpoint(self._endpoint_key(endpoint, policy), self._ports.gate)
        return session if session is not None and self._may_serve(session) else None

    def _may_serve(self, session: Session) -> bool:
        """Whether a kept session can be tried; whether it is of use still, the server tells in the transaction."""
        if session.take_again() and self._may_use(session):
            return True
        session.close()
        return False

    def _count_use(self, session: Session, plan: ConnectPlan) -> None:
        """Have a kept session count against the limits of its site, unless it was of no use."""
        if not session.stale:
            plan.reused(session.endpoint)

    def _may_use(self, session: Session) -> bool:
        """Whether a kept session may be used for this request, too, as far as connections are counted."""
        if self._ports.gate is None or session.passage is None:
            return True
        passage = self._ports.gate.take_over(session.passage)
        if passage is None:
            return False
        session.passage = passage
        return True

    def _way(self, endpoint: Endpoint) -> Way:
        endpoints = () if self._route is None else self._route.endpoints
        return Way(endpoint=endpoint, hosts=tuple(sorted({each.host for each in endpoints})), first=self._first)

    def _cache_rule(self) -> CacheRule:
        settings, destination = self._settings, self._destination
        domain = self._site_text if destination is None else destination.host
        if domain in settings.connection_cache_destinations:
            return CacheRule(load=True, store=True)
        return self._request.cache if settings.connection_cache_on_demand else _KEEP_NOTHING

    def _destination_key(self, label: str = "") -> SessionKey:
        request, by_sender = self._request, self._logins.by_sender
        return (request.protocol, label or self._label, request.require_tls, request.tls_optional, *by_sender)

    def _endpoint_key(self, endpoint: Endpoint, policy: TlsPolicy) -> SessionKey:
        # An authenticated session is for those with the same credentials only. Source: smtp-delivery.
        login = self._logins.kept_apart_by(endpoint)
        return (self._request.protocol, endpoint.address, endpoint.port, policy, *login)

    def _introduction(self, session: Session, *, plaintext: bool) -> Introduction:
        endpoint = session.endpoint
        smtp = self._request.protocol is Protocol.SMTP
        port = None if self._destination is None else self._destination.port
        return Introduction(
            protocol=self._request.protocol,
            nexthop=self._request.nexthop,
            best=endpoint.preference == self._best_preference,
            detect_loop=smtp and port == LOOP_PORT,
            plaintext=plaintext,
            may_retry_plaintext=self._may_fall_back(endpoint, session.policy),
            login=self._logins.find(endpoint),
        )

    def _may_fall_back(self, endpoint: Endpoint, policy: TlsPolicy) -> bool:
        """Whether a TLS failure may be answered by plaintext: opportunistic, deferred before, no password to lose.

        Source: smtp-delivery P-30.
        """
        if policy.level is not TlsLevel.MAY or policy.requires.demands_tls:
            return False
        waited = self._request.active_at - self._request.arrived_at
        return waited >= self._settings.minimal_backoff_time and not self._logins.is_expected(endpoint)

    def _connect_seconds(self) -> float:
        lmtp = self._request.protocol is Protocol.LMTP
        timeout = self._settings.lmtp_connect_timeout if lmtp else self._settings.connect_timeout
        return timeout.total_seconds()
