"""Where mail for a domain goes, for a look at its limits: found as for a delivery; nothing is connected to."""

import random
from dataclasses import dataclass, replace
from datetime import timedelta

from mailq.errors import DestinationSyntaxError
from mailq.limits.rules import source_for
from mailq.routing.destination import is_address, is_hostname, parse_destination, split_nexthops
from mailq.routing.interfaces import system_addresses
from mailq.routing.mx import NoRoute
from mailq.routing.resolver import DnsResolver
from mailq.routing.route import find_route
from mailq.routing.transport import NextHop, Routes, nexthop_for
from mailq.settings import Settings
from mailq.worker.plugins import load_hooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of a nexthop's first site.

    Attributes:
        nexthop: As the queue stores it.
        hosts: Their names, in the order of trying, each once.
        addresses: Theirs, each with the source address for it; empty: the system's choice.
        problem: Why none is known; empty: some are, or nobody wanted to know.
    """

    nexthop: str
    hosts: tuple[str, ...] = ()
    addresses: tuple[tuple[str, str], ...] = ()
    problem: str = ""


def find_servers(text: str, *, settings: Settings, timeout: timedelta | None) -> Servers:
    """Return where mail goes.

    Args:
        text: A recipient's domain, which the settings may route, or a destination in any other form.
        settings: In force.
        timeout: For each question to the name servers; None: they are not asked.

    Raises:
        ConfigError: The destination or a setting cannot be used.
    """
    routed = is_hostname(text) and not is_address(text)
    nexthop = NextHop.parse(
        nexthop_for(f"postmaster@{text}", settings=settings, routes=Routes.from_settings(settings)) if routed else text
    )
    if timeout is None or nexthop.socket_path is not None:
        return Servers(nexthop=str(nexthop))
    try:
        destination = parse_destination(split_nexthops(nexthop.text)[0], default_service=settings.tcp_port)
    except DestinationSyntaxError as error:
        return Servers(nexthop=str(nexthop), problem=str(error))
    hurried = replace(settings, dns_timeout=min(settings.dns_timeout, timeout))
    route = find_route(
        destination,
        resolver=DnsResolver(hurried, reply_filter=load_hooks(settings.hooks).dns_filter),
        own_addresses=system_addresses(settings),
        settings=settings,
        rng=random.Random(),  # noqa: S311 - no secret depends on it
        protocol=nexthop.protocol,
    )
    if isinstance(route, NoRoute):
        return Servers(nexthop=str(nexthop), problem=route.failure.reason)
    found = [endpoint.address for endpoint in route.endpoints]
    return Servers(
        nexthop=str(nexthop),
        hosts=tuple(dict.fromkeys(endpoint.host for endpoint in route.endpoints)),
        addresses=tuple((address, source_for(settings, address)) for address in found),
    )
