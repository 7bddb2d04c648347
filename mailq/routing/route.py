"""Find the servers of one site.

A site named by a domain is asked for its mail exchangers, and those for
their addresses; a site named by a host only for addresses; where the
operator wants it, SRV records tell a service's hosts and ports. Whatever goes
wrong comes back as a failure that an operator can read. The latest lookup
gives the text; a transient lookup failure makes the whole site transient,
whatever came before or after it.

Invariant: a route has at least one endpoint, and none of them is this host
when the site is reached on the SMTP port.

Source: RFC 5321 §5.1, RFC 7505, RFC 6186, smtp-delivery C-10, C-18, C-19, C-21 to C-25, A-20 to A-66.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import NamedTuple
from typing import Protocol as Port

from mailq.envelope import Protocol
from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.answer import Answer
from mailq.routing.destination import SERVICES, Destination, Lookup
from mailq.routing.direct import LOOP_STATUS, direct_route, resolve_failure, unless_self
from mailq.routing.mx import (
    NoRoute,
    Route,
    balance_address_families,
    drop_self_and_worse,
    order_by_preference,
)
from mailq.routing.srv import ServiceRecord, order_services, service_name
from mailq.security import TlsaRecord
from mailq.settings import Settings
from mailq.status import Endpoint, EnhancedStatus, Failure

_log = logging.getLogger(__name__)

_DNS_STATUS: Mapping[LookupKind, EnhancedStatus] = MappingProxyType(
    {
        LookupKind.RETRY: EnhancedStatus.parse("4.4.3"),
        LookupKind.FAIL: EnhancedStatus.parse("5.4.3"),
        LookupKind.INVALID: EnhancedStatus.parse("5.4.4"),
        LookupKind.NOT_FOUND: EnhancedStatus.parse("5.4.4"),
        LookupKind.POLICY: EnhancedStatus.parse("4.7.0"),
        LookupKind.NULL_MX: EnhancedStatus.parse("5.1.0"),
        LookupKind.NULL_SRV: EnhancedStatus.parse("5.1.0"),
        LookupKind.SYSTEM: EnhancedStatus.parse("4.3.0"),
    }
)
"""Source: smtp-delivery A-21, A-30 to A-34, A-61."""

_NATIVE_STATUS: Mapping[LookupKind, EnhancedStatus] = MappingProxyType(
    {
        **_DNS_STATUS,
        LookupKind.RETRY: EnhancedStatus.parse("4.4.4"),
        LookupKind.FAIL: EnhancedStatus.parse("5.3.0"),
    }
)
"""The same for the system's name service. Source: smtp-delivery A-22."""

_NO_PRIMARY = EnhancedStatus.parse("4.4.4")
_NO_FAMILY = EnhancedStatus.parse("4.4.4")
_ADDRESS_LIMIT = 100
"""Source: smtp-delivery A-27."""

# Differs from Postfix: a domain may list a hundred hosts whose name servers never answer; waiting for each
# would hold a session slot for half an hour. What is known after ten is as good: the site is transient.
_UNANSWERED_LIMIT = 10

Endpoints = tuple[Endpoint, ...]

_OVERRIDABLE = frozenset({LookupKind.RETRY, LookupKind.INVALID, LookupKind.FAIL})


class Resolver(Port):
    """Answers the questions that mail asks of DNS."""

    def mail_exchangers(self, domain: str) -> Answer[tuple[int, str]]:
        """Return ``(preference, host)`` pairs, at least one, in the answer's order.

        Raises:
            LookupFailedError: With kind NULL_MX when any target is the root name.
        """

    def addresses(self, host: str) -> Answer[str]:
        """Return the host's IP addresses as text, at least one: IPv4 before IPv6, enabled families only.

        Raises:
            LookupFailedError: No usable address.
        """

    def services(self, name: str) -> Answer[ServiceRecord]:
        """Return the SRV records of *name*, which is ``_service._tcp.domain``, at least one, in the answer's order.

        Raises:
            LookupFailedError: With kind NULL_SRV when any target is the root name.
        """

    def tlsa(self, host: str, port: int) -> Answer[TlsaRecord]:
        """Return the TLSA records of a TCP port, at least one, whether validated or not.

        Raises:
            LookupFailedError: With kind NOT_FOUND when there is none.
        """

    def alias(self, host: str) -> Answer[str]:
        """Return the name that *host* is an alias of, without following it any further.

        Raises:
            LookupFailedError: With kind NOT_FOUND when it is no alias.
        """


def find_route(
    destination: Destination,
    *,
    resolver: Resolver,
    own_addresses: Collection[str],
    settings: Settings,
    rng: Random,
    protocol: Protocol,
) -> Route | NoRoute:
    """Find and order the servers of one site.

    Args:
        destination: The site.
        resolver: Asked for the names; must be of the kind that *settings* chooses.
        own_addresses: Of this host, to see mail that would come back.
        settings: The section "Routing".
        rng: Draws by the weight of SRV records; shuffles servers of equal rank unless ``randomize_addresses`` is off.
        protocol: LMTP asks for no mail exchangers and knows no loops.

    Source: smtp-delivery C-18 to C-25, A-30 to A-66.
    """
    if not settings.address_families:
        return NoRoute(resolve_failure(_NO_FAMILY, "all network protocols are disabled"))
    smtp = protocol is Protocol.SMTP
    own = frozenset(own_addresses) if smtp and destination.port == SERVICES["smtp"] else frozenset[str]()
    known = direct_route(destination, own, settings.address_families)
    if known is not None:
        return known
    search = Search(
        destination=destination,
        resolver=resolver,
        own_addresses=own,
        settings=settings,
        rng=rng,
        smtp=smtp,
    )
    return search.by_service() if search.service_wanted else search.by_name()


class _Target(NamedTuple):
    """One host to resolve: how much it is preferred, its name, and the port it serves on."""

    preference: int
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One site's search; no own addresses means that loops are not looked for."""

    destination: Destination
    resolver: Resolver
    own_addresses: Collection[str]
    settings: Settings
    rng: Random
    smtp: bool

    @property
    def service_wanted(self) -> bool:
        """Whether SRV records tell where the servers are. Source: smtp-delivery C-21."""
        services = (service.lower() for service in self.settings.use_srv_lookup)
        return self._dns_wanted and self.destination.service.lower() in services

    @property
    def _dns_wanted(self) -> bool:
        return self.destination.lookup is Lookup.MX and not self.settings.disable_dns_lookups

    def by_service(self) -> Route | NoRoute:
        """Source: smtp-delivery A-60 to A-66."""
        name = service_name(self.destination.service, self.destination.host)
        fall_back = self.settings.allow_srv_lookup_fallback
        try:
            found = self.resolver.services(name)
        except LookupFailedError as error:
            fall_back |= self.settings.ignore_srv_lookup_error and error.kind in _OVERRIDABLE
            answer: Route | NoRoute = NoRoute(resolve_failure(_DNS_STATUS[error.kind], error.text))
        else:
            records = order_services(found.records, rng=self.rng)
            answer = _vouched(self._by_records(name, records), validated=found.validated)
        return self.by_name() if fall_back and isinstance(answer, NoRoute) else answer

    def _by_records(self, name: str, records: Sequence[ServiceRecord]) -> Route | NoRoute:
        """Source: smtp-delivery A-63 to A-65, C-23."""
        found, failure = self._resolve([_Target(r.priority, r.target, r.port) for r in records])
        if failure is not None and not found:
            _log.warning("no SRV host for %s has a valid address record", name)
            return NoRoute(failure)
        return self._beyond_self(found, name=name, best=records[0].priority, order=self._balanced)

    def by_name(self) -> Route | NoRoute:
        """Ask for mail exchangers where they may be asked for, else for a host. Source: smtp-delivery C-19."""
        return self.by_domain() if self.smtp and self._dns_wanted else self.by_host()

    def by_domain(self) -> Route | NoRoute:
        """Source: smtp-delivery A-30 to A-38."""
        domain = self.destination.host
        try:
            answer = self.resolver.mail_exchangers(domain)
        except LookupFailedError as error:
            implicit = error.kind is LookupKind.NOT_FOUND
            if implicit or (self.settings.ignore_mx_lookup_error and error.kind in _OVERRIDABLE):
                return self.by_host()
            return NoRoute(resolve_failure(_DNS_STATUS[error.kind], error.text))
        exchangers, port = sorted(answer, key=_preference), self.destination.port
        found, failure = self._resolve([_Target(preference, host, port) for preference, host in exchangers])
        if failure is not None and not found:
            return NoRoute(self._unresolvable(failure))
        route = self._beyond_self(found, name=domain, best=exchangers[0][0], order=self._ordered)
        return _vouched(route, validated=answer.validated)

    def by_host(self) -> Route | NoRoute:
        """Source: smtp-delivery A-50 to A-53."""
        host = self.destination.host
        found, failure = self._resolve([_Target(0, host, self.destination.port)])
        if failure is not None:
            return NoRoute(failure)
        return unless_self(host, found, self.own_addresses) or Route(self._ordered(found), best_preference=0)

    def _beyond_self(
        self, found: Endpoints, *, name: str, best: int, order: Callable[[Endpoints], Endpoints]
    ) -> Route | NoRoute:
        """Keep who is nearer to the goal than this host; *best* is the best preference of any record.

        Source: smtp-delivery A-37, A-64, C-23.
        """
        usable = drop_self_and_worse(found, own_addresses=self.own_addresses)
        if usable:
            ordered = order(usable)
            return Route(ordered, ordered[0].preference, last_site=len(usable) < len(found))
        if best == min(endpoint.preference for endpoint in found):
            failure = resolve_failure(LOOP_STATUS, f"mail for {name} loops back to myself")
        else:
            failure = resolve_failure(_NO_PRIMARY, f"unable to find primary relay for {name}")
        return NoRoute(failure, last_site=True)

    def _resolve(self, targets: Sequence[_Target]) -> tuple[Endpoints, Failure | None]:
        """Resolve every host; the failure, where there was one, speaks for all that failed."""
        found: list[Endpoint] = []
        failure: Failure | None = None
        unanswered = 0
        for preference, host, port in targets:
            try:
                addresses = self.resolver.addresses(host)
            except LookupFailedError as error:
                failure = _worst(failure, error)
                unanswered += error.kind is LookupKind.RETRY
            else:
                found += (Endpoint(host, address, port, preference) for address in addresses)
            if unanswered >= _UNANSWERED_LIMIT or len(found) >= _ADDRESS_LIMIT:
                break
        return tuple(found[:_ADDRESS_LIMIT]), failure

    def _unresolvable(self, failure: Failure) -> Failure:
        """Source: smtp-delivery A-36."""
        _log.warning("no MX host for %s has a valid address record", self.destination.host)
        if self.settings.defer_if_no_mx_address_found:
            return resolve_failure(failure.status.as_transient(), failure.reason)
        return failure

    def _ordered(self, endpoints: Endpoints) -> Endpoints:
        """Source: smtp-delivery A-38, A-52."""
        settings = self.settings
        rng = self.rng if settings.randomize_addresses else None
        return self._balanced(order_by_preference(endpoints, rng=rng, address_preference=settings.address_preference))

    def _balanced(self, endpoints: Endpoints) -> Endpoints:
        """Source: smtp-delivery A-45, A-64."""
        if not self.settings.balance_inet_protocols:
            return endpoints
        return balance_address_families(endpoints, limit=self.settings.mx_address_limit)


def _worst(before: Failure | None, error: LookupFailedError) -> Failure:
    """Source: smtp-delivery A-23."""
    status = (_NATIVE_STATUS if error.native else _DNS_STATUS)[error.kind]
    if before is not None and before.transient:
        status = status.as_transient()
    return resolve_failure(status, error.text)


def _vouched(route: Route | NoRoute, *, validated: bool) -> Route | NoRoute:
    return replace(route, validated=validated) if isinstance(route, Route) else route


def _preference(exchanger: tuple[int, str]) -> int:
    return exchanger[0]
