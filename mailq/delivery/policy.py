"""The TLS policies of one request's servers.

Invariant: within one request a server is held to one policy, chosen before the
first connection to it; a kept session is only used where its policy is still
the one that would be chosen for it now.

Source: smtp-delivery C-16, C-34 to C-36, P-10, R-12.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from mailq.delivery.classify import policy_problem
from mailq.delivery.ports import Ports
from mailq.delivery.report import SessionReport
from mailq.delivery.session import Session
from mailq.envelope import DeliveryRequest
from mailq.routing.destination import Destination
from mailq.routing.mx import NoRoute, Route
from mailq.security import TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.status import Endpoint, SessionFacts
from mailq.tls.choose import WRAPPER_PORT
from mailq.tls.policies import Policies
from mailq.tls.server import PolicyProblem, Server

log = logging.getLogger(__name__)


def _nowhere(_: Endpoint) -> bool:
    return False


class PolicyBook:
    """What was chosen for each server of one request."""

    def __init__(
        self,
        request: DeliveryRequest,
        *,
        ports: Ports,
        settings: Settings,
        logs_in: Callable[[Endpoint], bool] = _nowhere,
    ) -> None:
        """Choose for *request*; *logs_in* says whether there is a password to lose at a server."""
        self._logs_in = logs_in
        self._request = request
        self._tls_sessions = ports.tls_sessions
        self._policies = ports.tls or Policies(settings, resolver=ports.resolver)
        self._without_wrapper = settings.tls_wrappermode == "no"
        self._chosen: dict[Server, TlsPolicy | PolicyProblem] = {}
        self._nexthop = self._domain = ""
        self._validated: bool | None = None

    def at_site(self, text: str, destination: Destination | None, route: Route | NoRoute) -> None:
        """Turn to the servers of one site; *destination* is None for a UNIX-domain socket."""
        self._nexthop = text
        self._domain = text if destination is None else destination.host
        self._validated = route.validated if isinstance(route, Route) else None
        if destination is not None and destination.port == WRAPPER_PORT and self._without_wrapper:
            log.warning("%s: servers at port 465 expect TLS from the first byte: set tls_wrappermode=auto", text)

    def server(self, endpoint: Endpoint) -> Server:
        """Return *endpoint* with what led to it."""
        return Server(
            endpoint=endpoint,
            nexthop=self._nexthop,
            domain=self._domain,
            protocol=self._request.protocol,
            by_record=self._validated is not None,
            validated=self._validated is True,
            require_tls=self._request.require_tls,
            tls_optional=self._tls_optional(endpoint),
        )

    def choose(self, server: Server) -> TlsPolicy | PolicyProblem:
        """Return the policy, or why the server must be passed over."""
        chosen = self._chosen.get(server)
        if chosen is None:
            chosen = self._chosen[server] = self._policies.choose(server)
        return chosen

    def note(self, policy: TlsPolicy, result: TlsResult | None, endpoint: Endpoint) -> None:
        """Have a new session counted for TLS reports, once it is known how its encryption went. Source: C-20."""
        if self._tls_sessions is not None and result is not None:
            self._tls_sessions.note(policy, result, endpoint)

    def still_holds(self, session: Session) -> bool:
        """Whether a kept session is what this request would open now."""
        server = session.server
        if server is None:
            return False
        request = self._request
        optional = self._tls_optional(session.endpoint)
        if (server.require_tls, server.tls_optional) != (request.require_tls, optional):
            server = replace(server, require_tls=request.require_tls, tls_optional=optional)
        chosen = self.choose(server)
        return chosen is session.policy or chosen == session.policy

    def _tls_optional(self, endpoint: Endpoint) -> bool:
        # Whoever wrote the message may give up its safety, but not that of an account that all mail is sent by.
        return self._request.tls_optional and not self._logs_in(endpoint)


def passed_over(problem: PolicyProblem, endpoint: Endpoint) -> SessionReport:
    """Return the report of a server that was not connected to. Source: C-34 to C-36."""
    log.warning("%s is passed over: %s", endpoint, problem.reason)
    if problem.silent:
        return SessionReport()
    tls = outcome_of(problem)
    return SessionReport(failure=policy_problem(problem, endpoint)).with_facts(SessionFacts(tls=tls))


def outcome_of(problem: PolicyProblem) -> TlsResult:
    """Return how encryption went with a server that was not connected to."""
    return TlsResult(level=problem.policy.level, source=problem.policy.source, problem=problem.reason)
