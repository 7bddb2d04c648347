"""Where all rooms meet: settings in, a worker's runtime out.

Nothing here connects; that happens on first use, so a worker may start before
its database and broker do.
"""

import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from mailq.broker import is_memory, is_redis
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.errors import DatabaseUnavailableError
from mailq.limits.local import LocalSlots
from mailq.limits.redis import RedisSlots
from mailq.limits.slots import Slots
from mailq.queue.postmaster import Postmaster
from mailq.queue.reports import ReportRules
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.routing.interfaces import system_addresses
from mailq.routing.resolver import DnsResolver
from mailq.routing.transport import Routes, nexthop_for
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.worker.dispatch import Dispatcher
from mailq.worker.heartbeat import Heartbeat
from mailq.worker.plugins import load_hooks
from mailq.worker.runtime import Runtime
from mailq.worker.trouble import TroubleNotices

log = logging.getLogger(__name__)
# Beyond the threads, the heartbeat and the dispatcher count sessions.
_SPARE_CONNECTIONS: Final = 10


class SystemClock:
    """The machine's time."""

    def now(self) -> datetime:
        """Return the present instant, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go backwards, from an arbitrary origin."""
        return time.monotonic()


def new_owner() -> str:
    """Return a name for this process that no other has, now or later: ``host:pid:random``."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def with_hostname(settings: Settings) -> Settings:
    """Return *settings* with ``myhostname`` set, by the system where nobody else did."""
    return settings if settings.myhostname else replace(settings, myhostname=socket.getfqdn())


def make_slots(settings: Settings) -> Slots:
    """Return the counter of sessions that fits the broker."""
    if is_redis(settings.broker_url):
        connections = settings.worker_concurrency + _SPARE_CONNECTIONS
        return RedisSlots.open(settings.broker_url, prefix=settings.key_prefix, max_connections=connections)
    if not is_memory(settings.broker_url):
        log.warning("Without Redis, destination_concurrency_limit holds for each worker process by itself")
    return LocalSlots()


def _router(settings: Settings) -> Callable[[str], str]:
    """Return what says where mail for an address goes."""
    routes = Routes.from_settings(settings)
    return lambda address: nexthop_for(address, settings=settings, routes=routes)


def build_runtime(settings: Settings) -> Runtime:
    """Return the runtime of this process; the caller closes it.

    Raises:
        ConfigError: The settings cannot be used.
    """
    settings = with_hostname(settings)
    store = Store.open(settings.database_url)
    slots = make_slots(settings)
    clock = SystemClock()
    hooks = load_hooks(settings.hooks)
    sessions = SessionCache(clock, idle_time=settings.connection_cache_time_limit)
    ports = Ports(
        clock=clock,
        resolver=DnsResolver(settings, reply_filter=hooks.dns_filter),
        connector=SocketConnector(settings),
        bodies=store.bodies,
        # Breaks ties between servers and spreads retries; nobody gains by guessing it.
        rng=random.Random(),  # noqa: S311 - no secret depends on it
        own_addresses=system_addresses(settings),
        hooks=hooks,
    )
    heartbeat = Heartbeat(
        leases=store,
        slots=slots,
        lease_time=settings.lease_time,
        stall_time=settings.stall_time,
        on_tick=sessions.close_idle,
    )
    trouble = TroubleNotices(
        store,
        clock=clock,
        hostname=settings.myhostname,
        postmaster=Postmaster.of(settings),
        nexthop_for=_router(settings),
    )
    return Runtime(
        settings=settings,
        owner=new_owner(),
        store=store,
        slots=slots,
        ports=ports,
        sessions=sessions,
        ringer=Ringer(settings),
        heartbeat=heartbeat,
        on_trouble=trouble.tell,
    )


def build_dispatcher(runtime: Runtime) -> Dispatcher:
    """Return a dispatcher on *runtime*'s store, slots and ringer."""
    settings = runtime.settings
    rules = ReportRules.of(settings, nexthop_for=_router(settings))

    def send_reports(limit: int) -> int:
        return len(runtime.store.send_reports(rules, limit=limit, wait=settings.report_wait))

    return Dispatcher(
        store=runtime.store,
        slots=runtime.slots,
        ringer=runtime.ringer,
        settings=settings,
        send_reports=send_reports,
    )


def prepare_database(store: Store) -> None:
    """Make sure that the queue can be used: a SQLite file is brought up to date, a server's database must be.

    A database that cannot be reached is waited for later on, not here.

    Raises:
        SchemaError: A server's database is not migrated.
    """
    if store.engine.dialect.name == "sqlite":
        store.migrate()
        return
    try:
        store.check_schema()
    except DatabaseUnavailableError as error:
        log.error("Starting without the database: %s", error)  # noqa: TRY400 - the text says what to do
