"""The world for a look at a domain's servers: the resolver, the connector and the policies of a worker, in a hurry."""

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

from mailq.delivery.ports import Ports
from mailq.delivery.probe import DestinationView, probe
from mailq.queue.store import Store
from mailq.routing.interfaces import system_addresses
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.tls.policies import Policies
from mailq.worker.plugins import load_hooks
from mailq.worker.tls_service import sts_cache_of
from mailq.worker.wiring import SystemClock, with_hostname

_HURRIED = ("connect_timeout", "helo_timeout", "starttls_timeout", "quit_timeout", "dns_timeout", "mta_sts_timeout")


def check_tls(
    nexthop: str, *, settings: Settings, store: Store, timeout: timedelta, require_tls: bool = False
) -> DestinationView:
    """Return how mail to *nexthop* would be encrypted now.

    Args:
        nexthop: A domain, or a destination in any form.
        settings: In force.
        store: Remembers MTA-STS policies.
        timeout: For each wait at a server; shorter timeouts of the settings stay.
        require_tls: As for a message that requires TLS.

    Raises:
        ConfigError: The destination or a setting cannot be used.
    """
    limits: dict[str, Any] = {name: min(getattr(settings, name) or timeout, timeout) for name in _HURRIED}
    settings = replace(with_hostname(settings), **limits)
    hooks = load_hooks(settings.hooks)
    resolver = DnsResolver(settings, reply_filter=hooks.dns_filter)
    sts = sts_cache_of(settings, store) if settings.mta_sts else None
    ports = Ports(
        clock=SystemClock(),
        resolver=resolver,
        connector=SocketConnector(settings),
        bodies=store.bodies,
        rng=random.Random(),  # noqa: S311 - no secret depends on it
        own_addresses=system_addresses(settings),
        hooks=hooks,
        tls=Policies(settings, resolver=resolver, sts=sts),
    )
    return probe(nexthop, ports=ports, settings=settings, require_tls=require_tls)
