"""Find the servers of one site.

A site named by a domain is asked for its mail exchangers, and those for
their addresses; a site named by a host only for addresses. Whatever goes
wrong comes back as a failure that an operator can read. The latest lookup
gives the text; a transient lookup failure makes the whole site transient,
whatever came before or after it.

Invariant: a route has at least one endpoint, and none of them is this host
when the site is reached on the SMTP port.

Source: RFC 5321 §5.1, RFC 7505, smtp-delivery C-10, C-18, C-19, C-23 to C-25, A-20 to A-53.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Protocol as Port

from mailq.envelope import Protocol
from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.destination import SERVICES, Destination, Lookup
from mailq.routing.mx import (
    NoRoute,
    Route,
    any_is_self,
    balance_address_families,
    drop_self_and_worse,
    order_by_preference,
)
from mailq.settings import Settings
from mailq.status import Endpoint, EnhancedStatus, Failure, Scope, Stage

_log = logging.getLogger(__name__)

_DNS_STATUS: Mapping[LookupKind, EnhancedStatus] = MappingProxyType(
    {
        LookupKind.RETRY: EnhancedStatus.parse("4.4.3"),
        LookupKind.FAIL: EnhancedStatus.parse("5.4.3"),
        LookupKind.INVALID: EnhancedStatus.parse("5.4.4"),
        LookupKind.NOT_FOUND: EnhancedStatus.parse("5.4.4"),
        LookupKind.POLICY: EnhancedStatus.parse("4.7.0"),
        LookupKind.NULL_MX: EnhancedStatus.parse("5.1.0"),
        LookupKind.SYSTEM: EnhancedStatus.parse("4.3.0"),
    }
)
"""Source: smtp-delivery A-21, A-30 to A-34."""

_NATIVE_STATUS: Mapping[LookupKind, EnhancedStatus] = MappingProxyType(
    {
        **_DNS_STATUS,
        LookupKind.RETRY: EnhancedStatus.parse("4.4.4"),
        LookupKind.FAIL: EnhancedStatus.parse("5.3.0"),
    }
)
"""The same for the system's name service. Source: smtp-delivery A-22."""

_LOOP = EnhancedStatus.parse("5.4.6")
_NO_PRIMARY = EnhancedStatus.parse("4.4.4")
_NO_FAMILY = EnhancedStatus.parse("4.4.4")
_ADDRESS_LIMIT = 100
"""Source: smtp-delivery A-27."""

# Differs from Postfix: a domain may list a hundred hosts whose name servers never answer; waiting for each
# would hold a session slot for half an hour. What is known after ten is as good: the site is transient.
_UNANSWERED_LIMIT = 10

_OVERRIDABLE = frozenset({LookupKind.RETRY, LookupKind.INVALID, LookupKind.FAIL})


class Resolver(Port):
    """Answers the two questions that mail asks of DNS."""

    def mail_exchangers(self, domain: str) -> Sequence[tuple[int, str]]:
        """Return ``(preference, host)`` pairs, at least one, in the answer's order.

        Raises:
            LookupFailedError: With kind NULL_MX when any target is the root name.
        """

    def addresses(self, host: str) -> Sequence[str]:
        """Return the host's IP addresses as text, at least one: IPv4 before IPv6, enabled families only.

        Raises:
            LookupFailedError: No usable address.
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
        rng: Shuffles servers of equal rank; not used when ``randomize_addresses`` is off.
        protocol: LMTP asks for no mail exchangers and knows no loops.

    Source: smtp-delivery C-18 to C-25, A-30 to A-53.
    """
    if not settings.inet_protocols:
        return NoRoute(_failure(_NO_FAMILY, "all network protocols are disabled"))
    smtp = protocol is Protocol.SMTP
    search = _Search(
        destination=destination,
        resolver=resolver,
        own_addresses=own_addresses if smtp and destination.port == SERVICES["smtp"] else (),
        settings=settings,
        rng=rng if settings.randomize_addresses else None,
    )
    if smtp and destination.lookup is Lookup.MX and not settings.disable_dns_lookups:
        return search.by_domain()
    return search.by_host()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """One site's search; no own addresses means that loops are not looked for."""

    destination: Destination
    resolver: Resolver
    own_addresses: Collection[str]
    settings: Settings
    rng: Random | None

    def by_domain(self) -> Route | NoRoute:
        """Source: smtp-delivery A-30 to A-38."""
        domain = self.destination.host
        try:
            exchangers = sorted(self.resolver.mail_exchangers(domain), key=_preference)
        except LookupFailedError as error:
            implicit = error.kind is LookupKind.NOT_FOUND
            if implicit or (self.settings.ignore_mx_lookup_error and error.kind in _OVERRIDABLE):
                return self.by_host()
            return NoRoute(_failure(_DNS_STATUS[error.kind], error.text))
        found, failure = self._resolve(exchangers)
        if failure is not None and not found:
            return NoRoute(self._unresolvable(failure))
        usable = drop_self_and_worse(found, own_addresses=self.own_addresses)
        self_is_mx = len(usable) < len(found)
        if not usable:
            return NoRoute(self._only_self(exchangers[0][0], found), last_site=True)
        return self._route(usable, last_site=self_is_mx)

    def by_host(self) -> Route | NoRoute:
        """Source: smtp-delivery A-50 to A-53."""
        host = self.destination.host
        found, failure = self._resolve([(0, host)])
        if failure is not None:
            return NoRoute(failure)
        if any_is_self(found, own_addresses=self.own_addresses):
            return NoRoute(_failure(_LOOP, f"mail for {host} loops back to myself"), last_site=True)
        return self._route(found, last_site=False)

    def _resolve(self, hosts: Sequence[tuple[int, str]]) -> tuple[tuple[Endpoint, ...], Failure | None]:
        """Resolve every host; the failure, where there was one, speaks for all that failed."""
        found: list[Endpoint] = []
        failure: Failure | None = None
        unanswered = 0
        for preference, host in hosts:
            try:
                addresses = self.resolver.addresses(host)
            except LookupFailedError as error:
                failure = self._worst(failure, error)
                unanswered += error.kind is LookupKind.RETRY
            else:
                found += (Endpoint(host, address, self.destination.port, preference) for address in addresses)
            if unanswered >= _UNANSWERED_LIMIT or len(found) >= _ADDRESS_LIMIT:
                break
        return tuple(found[:_ADDRESS_LIMIT]), failure

    def _worst(self, before: Failure | None, error: LookupFailedError) -> Failure:
        """Source: smtp-delivery A-23."""
        table = _NATIVE_STATUS if self.settings.disable_dns_lookups else _DNS_STATUS
        status = table[error.kind]
        if before is not None and before.transient:
            status = status.as_transient()
        return _failure(status, error.text)

    def _unresolvable(self, failure: Failure) -> Failure:
        """Source: smtp-delivery A-36."""
        _log.warning("no MX host for %s has a valid address record", self.destination.host)
        if self.settings.defer_if_no_mx_address_found:
            return _failure(failure.status.as_transient(), failure.reason)
        return failure

    def _only_self(self, best_mx: int, found: Sequence[Endpoint]) -> Failure:
        """Source: smtp-delivery A-37."""
        domain = self.destination.host
        if best_mx == min(endpoint.preference for endpoint in found):
            return _failure(_LOOP, f"mail for {domain} loops back to myself")
        return _failure(_NO_PRIMARY, f"unable to find primary relay for {domain}")

    def _route(self, endpoints: tuple[Endpoint, ...], *, last_site: bool) -> Route:
        """Source: smtp-delivery A-38, A-52."""
        settings = self.settings
        ordered = order_by_preference(endpoints, rng=self.rng, address_preference=settings.address_preference)
        if settings.balance_inet_protocols:
            ordered = balance_address_families(ordered, limit=settings.mx_address_limit)
        return Route(ordered, ordered[0].preference, last_site)


def _preference(exchanger: tuple[int, str]) -> int:
    return exchanger[0]


def _failure(status: EnhancedStatus, reason: str) -> Failure:
    return Failure(status=status, reason=reason, stage=Stage.RESOLVE, scope=Scope.SERVER)
