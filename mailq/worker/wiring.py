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
from mailq.delivery.tokens import TokenCache
from mailq.errors import DatabaseUnavailableError
from mailq.limits.fallback import FallbackLimits
from mailq.limits.live_rules import LiveRules
from mailq.limits.local_limits import LocalLimits
from mailq.limits.port import Limits
from mailq.limits.redis_limits import RedisLimits
from mailq.limits.shelf_limits import ShelfLimits
from mailq.queue.certainty import CertaintyRules
from mailq.queue.objects import ObjectStore
from mailq.queue.postmaster import Postmaster
from mailq.queue.reports import ReportRules
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.routing.interfaces import system_addresses
from mailq.routing.resolver import DnsResolver
from mailq.routing.transport import Routes, nexthop_for
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.tls.https import HTTPS_PORT
from mailq.worker.by_hand import ByHand, nobody
from mailq.worker.claims import Claims
from mailq.worker.committer import Committer
from mailq.worker.desk import Desk
from mailq.worker.dispatch import Dispatcher
from mailq.worker.heartbeat import Heartbeat
from mailq.worker.housekeeping import Housekeeper
from mailq.worker.listener import load_listener
from mailq.worker.login_files import check_logins, login_files
from mailq.worker.metrics_page import split_address
from mailq.worker.newcomers import SETTLED_SECONDS
from mailq.worker.plugins import load_hooks
from mailq.worker.pulse import Pulse
from mailq.worker.runtime import Runtime
from mailq.worker.serve import serve_nexthop
from mailq.worker.suspended import Suspended
from mailq.worker.tls_service import TlsService
from mailq.worker.trouble import TroubleNotices
from mailq.worker.turnstile import Turnstile
from mailq.worker.unrung import Places, Unrung

log = logging.getLogger(__name__)
# Beyond the threads, the heartbeat and the dispatcher count sessions.
_SPARE_CONNECTIONS: Final = 10


class SystemClock:
    """The machine's time."""

    def now(self) -> datetime:
        """Return the present instant, aware, UTC."""
        return datetime.now(UTC)

    # Seconds that never go backwards; asked for a dozen times a message, so the function itself.
    monotonic = staticmethod(time.monotonic)


def new_owner() -> str:
    """Return a name for this process that no other has, now or later: ``host:pid:random``."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def with_hostname(settings: Settings) -> Settings:
    """Return *settings* with ``myhostname`` set, by the system where nobody else did."""
    return settings if settings.myhostname else replace(settings, myhostname=socket.getfqdn())


def make_limits(settings: Settings, store: Store) -> Limits:
    """Return what counts sessions over all workers: Redis where it is the broker, else the database."""
    if is_redis(settings.broker_url):
        connections = settings.worker_concurrency + _SPARE_CONNECTIONS
        redis = RedisLimits.open(settings.broker_url, prefix=settings.key_prefix, max_connections=connections)
        if settings.limits_fallback == "wait":
            return redis
        books = store.limit_books
        return FallbackLimits(redis, ShelfLimits(books), books, hold_for=settings.lease_time)
    return LocalLimits() if is_memory(settings.broker_url) else ShelfLimits(store.limit_books)


def _router(settings: Settings) -> Callable[[str], str]:
    """Return what says where mail for an address goes."""
    routes = Routes.from_settings(settings)
    return lambda address: nexthop_for(address, settings=settings, routes=routes)


def _in_turn(*steps: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for step in steps:
            step()

    return run


def build_runtime(settings: Settings, *, https_port: int = HTTPS_PORT) -> Runtime:
    """Return the runtime of this process; the caller closes it.

    Args:
        settings: In force.
        https_port: Of hosts with MTA-STS policies; any but 443 is for tests.

    Raises:
        ConfigError: The settings cannot be used.
    """
    settings = with_hostname(settings)
    store = Store.open(settings.database_url, objects=ObjectStore.of(settings))
    clock = SystemClock()
    hooks = load_hooks(settings.hooks)
    check_logins(settings, hooks)
    split_address(settings.metrics_address)
    turnstile = Turnstile(settings.worker_concurrency)
    sessions = SessionCache(clock, idle_time=settings.connection_cache_time_limit)
    resolver = DnsResolver(settings, reply_filter=hooks.dns_filter)
    security = TlsService(
        settings,
        store=store,
        resolver=resolver,
        nexthop_for=_router(settings),
        now=clock.now,
        https_port=https_port,
    )
    ports = Ports(
        clock=clock,
        resolver=resolver,
        connector=SocketConnector(settings, aside=turnstile.aside),
        bodies=store.bodies,
        # Breaks ties between servers and spreads retries; nobody gains by guessing it.
        rng=random.Random(),  # noqa: S311 - no secret depends on it
        own_addresses=system_addresses(settings),
        hooks=hooks,
        tls=security.policies,
        tls_sessions=security.counts,
        login_tables=login_files(settings),
        tokens=None if hooks.access_token is None else TokenCache(hooks.token, clock=clock),
        auth_failures=store.auth_failures,
    )
    owner = new_owner()
    limits = make_limits(settings, store)
    desk = Desk(
        limits,
        rules=LiveRules(settings, store.limit_rules).now,
        settings=settings,
        sites=store,
        sessions=sessions,
        owner=owner,
    )
    if isinstance(limits, FallbackLimits):
        limits.carry_over = desk.renew
    heartbeat = Heartbeat(
        leases=store,
        tickets=desk,
        lease_time=settings.lease_time,
        stall_time=settings.stall_time,
        on_tick=_in_turn(sessions.close_idle, desk.on_tick, security.on_tick),
    )
    pulse = Pulse(on_beat=turnstile.follow)
    trouble = TroubleNotices(
        store,
        clock=clock,
        hostname=settings.myhostname,
        postmaster=Postmaster.of(settings),
        nexthop_for=_router(settings),
    )
    return Runtime(
        settings=settings,
        owner=owner,
        store=store,
        desk=desk,
        ports=ports,
        sessions=sessions,
        ringer=Ringer(settings),
        heartbeat=heartbeat,
        claims=Claims(store, owner=owner, lease_time=settings.lease_time, is_busy=lambda: pulse.busy),
        pulse=pulse,
        turnstile=turnstile,
        security=security,
        certainty=CertaintyRules.of(settings),
        committer=Committer(store, lease_time=settings.lease_time),
        on_trouble=trouble.tell,
        suspended=Suspended(store),
        listener=load_listener(settings.on_outcome),
    )


def build_dispatcher(runtime: Runtime, *, goes_on: bool = True, places: Places | None = None) -> Dispatcher:
    """Return a dispatcher on *runtime*'s store, desk and ringer.

    Args:
        runtime: Of this process.
        goes_on: It runs round after round; False: a single one, which can leave nothing to later ones.
        places: Threads of this process that tasks without a ring may use, too; None: there are no such tasks.
    """
    settings = runtime.settings
    rules = ReportRules.of(settings, nexthop_for=_router(settings))

    def send_reports(limit: int) -> int:
        return len(runtime.store.send_reports(rules, limit=limit, wait=settings.report_wait))

    def serve(nexthop: str) -> None:
        serve_nexthop(nexthop, runtime)

    threads = settings.worker_concurrency
    return Dispatcher(
        store=runtime.store,
        desk=runtime.desk,
        begin_here=Unrung(serve, places=places, threads=threads, workers=lambda: runtime.desk.proven.workers)
        if places is not None
        else nobody,
        serve_here=ByHand(serve, most=threads, spare=lambda: threads - runtime.running)
        if settings.limits_fallback == "sql"
        else nobody,
        takes_here=runtime.takes,
        ringer=runtime.ringer,
        settings=settings,
        send_reports=send_reports,
        certainty=runtime.certainty,
        settled_seconds=SETTLED_SECONDS if goes_on else 0.0,
        housekeep=_in_turn(
            Housekeeper(runtime.store, settings).run_some,
            *([runtime.security.on_round] if runtime.security is not None else []),
        ),
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
