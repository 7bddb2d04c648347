"""The order of servers: which addresses of a site are tried, and which first.

Values in, values out: an endpoint list is a tuple, randomness is an argument.
No function invents an endpoint; each returns some of those it was given.

Source: RFC 5321 §5.1, smtp-delivery A-37 to A-45.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from mailq.routing.destination import canonical_address
from mailq.status import Endpoint, Failure

_RECORD_LIST_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Route:
    """Where a site's servers are.

    Attributes:
        endpoints: At least one, in the order of trial, not yet cut to the address limit.
        best_preference: Of the first endpoint. Source: smtp-delivery C-25.
        last_site: Nobody after this site is to be asked, whatever it says. Source: smtp-delivery C-23.
        validated: DNSSEC vouches for the MX or SRV records; None where there were none.
    """

    endpoints: tuple[Endpoint, ...]
    best_preference: int
    last_site: bool = False
    validated: bool | None = None


@dataclass(frozen=True, slots=True)
class NoRoute:
    """A site without a server.

    Attributes:
        failure: Why.
        last_site: Nobody after this site is to be asked. Source: smtp-delivery C-23, C-24.
    """

    failure: Failure
    last_site: bool = False


def any_is_self(endpoints: Collection[Endpoint], *, own_addresses: Collection[str]) -> bool:
    """Whether an endpoint is this host; by address, never by name. Source: smtp-delivery A-40, A-51."""
    own = _canonical(frozenset(own_addresses))
    return any(canonical_address(endpoint.address) in own for endpoint in endpoints)


def drop_self_and_worse(endpoints: tuple[Endpoint, ...], *, own_addresses: Collection[str]) -> tuple[Endpoint, ...]:
    """Drop this host, whoever shares its preference, and everything worse.

    Mail must only move towards the best exchanger; otherwise two backups
    could hand it to each other for ever.

    Source: RFC 5321 §5.1, smtp-delivery A-37, A-41.
    """
    own = _canonical(frozenset(own_addresses))
    mine = [endpoint.preference for endpoint in endpoints if canonical_address(endpoint.address) in own]
    if not mine:
        return endpoints
    limit = min(mine)
    return tuple(endpoint for endpoint in endpoints if endpoint.preference < limit)


def order_by_preference(
    endpoints: tuple[Endpoint, ...], *, rng: Random | None, address_preference: str
) -> tuple[Endpoint, ...]:
    """Sort by preference, within it by family, within that at random.

    Args:
        endpoints: Of any number of hosts; those of equal preference are mixed, not grouped by host.
        rng: None keeps the given order where nothing else decides.
        address_preference: The family that goes first within a preference: ``ipv4``, ``ipv6``, or ``any``.

    Source: smtp-delivery A-38, A-42 to A-44.
    """
    shuffled = list(endpoints)
    if rng is not None:
        rng.shuffle(shuffled)

    def rank(endpoint: Endpoint) -> tuple[int, bool]:
        return endpoint.preference, address_preference != "any" and _family(endpoint) != address_preference

    return tuple(sorted(shuffled, key=rank))


def balance_address_families(endpoints: tuple[Endpoint, ...], *, limit: int) -> tuple[Endpoint, ...]:
    """Cut to *limit* endpoints so that both families keep their share; the order stays.

    A host with many unreachable IPv6 addresses would otherwise use up the
    whole limit before its first IPv4 address. Changes nothing when only one
    family is present, when the limit is not exceeded, and when it is 0.

    Source: smtp-delivery A-45.
    """
    limit = min(limit, _RECORD_LIST_LIMIT)
    if limit <= 0 or len(endpoints) <= limit:
        return endpoints
    total6 = sum(_family(endpoint) == "ipv6" for endpoint in endpoints)
    total4 = len(endpoints) - total6
    if not total6 or not total4:
        return endpoints
    half = limit // 2
    if total6 <= half:
        keep6 = total6
    elif total4 <= half:
        keep6 = limit - total4
    else:
        keep6 = limit - (limit + (_family(endpoints[0]) == "ipv4")) // 2
    room = {"ipv6": keep6, "ipv4": limit - keep6}
    kept: list[Endpoint] = []
    for endpoint in endpoints:
        if room[_family(endpoint)]:
            room[_family(endpoint)] -= 1
            kept.append(endpoint)
    return tuple(kept)


def _family(endpoint: Endpoint) -> str:
    return "ipv6" if ":" in endpoint.address else "ipv4"


@lru_cache(maxsize=16)
def _canonical(addresses: frozenset[str]) -> frozenset[str]:
    return frozenset(text for text in map(canonical_address, addresses) if text is not None)
