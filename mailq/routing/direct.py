"""The way to a host that is named itself, and what it looks like where that host is this one.

A destination in brackets that is an address needs nobody to be asked, and so what a search would come to is worked
out once; queues are full of mail for the same places.

Source: smtp-delivery A-20, A-50 to A-53, C-24.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from mailq.routing.destination import Destination, Lookup, canonical_address
from mailq.routing.mx import NoRoute, Route, any_is_self
from mailq.status import Endpoint, EnhancedStatus, Failure, Scope, Stage

LOOP_STATUS: Final = EnhancedStatus.parse("5.4.6")

_REMEMBERED: Final = 4096


@lru_cache(_REMEMBERED)
def direct_route(
    destination: Destination, own_addresses: frozenset[str], families: tuple[str, ...]
) -> Route | NoRoute | None:
    """Return the route to a bracketed address of an enabled family; None for anything else."""
    address = canonical_address(destination.host) if destination.lookup is Lookup.HOST else None
    if address is None or ("ipv6" if ":" in address else "ipv4") not in families:
        return None
    found = (Endpoint(destination.host, address, destination.port),)
    return unless_self(destination.host, found, own_addresses) or Route(found, best_preference=0)


def unless_self(host: str, found: Collection[Endpoint], own_addresses: Collection[str]) -> NoRoute | None:
    """Return why mail cannot go to *host*: it is this very host; None where it is not. Source: A-51."""
    if any_is_self(found, own_addresses=own_addresses):
        return NoRoute(resolve_failure(LOOP_STATUS, f"mail for {host} loops back to myself"), last_site=True)
    return None


def resolve_failure(status: EnhancedStatus, reason: str) -> Failure:
    """Return the failure of a site whose servers are not known."""
    return Failure(status=status, reason=reason, stage=Stage.RESOLVE, scope=Scope.SERVER)
