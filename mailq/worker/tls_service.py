"""What a process does for transport security beside delivering: one chooser, one policy cache, one count of sessions.

The dispatcher refreshes policies and sends reports, every process writes its
counts down; all of it in threads of their own, so that no mail waits.

Source: RFC 8461 §3.3, RFC 8460 §4; smtp-delivery C-20, P-45.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from mailq.errors import InfrastructureError, SchemaError
from mailq.queue.store import Store
from mailq.routing.resolver import DnsResolver
from mailq.routing.route import Resolver
from mailq.settings import Settings
from mailq.tls.https import HTTPS_PORT, HttpsClient
from mailq.tls.policies import Policies
from mailq.tls.sts_cache import StsCache
from mailq.tls.sts_fetch import StsFetcher
from mailq.tls.tlsrpt_collect import SessionCounts
from mailq.worker.errands import Errand
from mailq.worker.tls_reports import TlsReportSender

_FLUSH_SECONDS: Final = 10.0
_REFRESH_SECONDS: Final = 30.0
_REFRESHED: Final = 5
_REPORT_SECONDS: Final = 60.0
_REPORTED: Final = 20
# A policy takes three questions to DNS: its announcement, and two families of addresses.
_DNS_SHARE: Final = 4


def sts_cache_of(settings: Settings, store: Store, *, https_port: int = HTTPS_PORT) -> StsCache:
    """Return what knows the MTA-STS policies of domains; it takes no longer than ``mta_sts_timeout`` for one.

    Args:
        settings: In force.
        store: Remembers policies.
        https_port: Of policy hosts; any but 443 is for tests.

    Raises:
        SettingError: The authorities in ``mta_sts_cafile`` cannot be read.
    """
    limit = settings.mta_sts_timeout
    resolver = DnsResolver(replace(settings, dns_timeout=min(settings.dns_timeout, limit / _DNS_SHARE)))
    client = HttpsClient(settings, resolver=resolver, port=https_port)
    client.check()
    seconds = limit.total_seconds()
    source = StsFetcher(client, resolver=resolver, timeout_seconds=seconds * (_DNS_SHARE - 1) / _DNS_SHARE)
    return StsCache(source, store.sts_policies, timeout_seconds=seconds)


class TlsService:
    """Owns what transport security needs in a process.

    Args:
        settings: In force; ``myhostname`` is set.
        store: The queue.
        resolver: For TLSA records.
        nexthop_for: Says where mail for an address goes.
        now: The present instant, aware.
        https_port: Of policy hosts; any but 443 is for tests.

    Raises:
        SettingError: A table of policies or a file of authorities cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        resolver: Resolver,
        nexthop_for: Callable[[str], str],
        now: Callable[[], datetime],
        https_port: int = HTTPS_PORT,
    ) -> None:
        self._store = store
        self._sts = sts_cache_of(settings, store, https_port=https_port) if settings.mta_sts else None
        self.policies = Policies(settings, resolver=resolver, sts=self._sts)
        self.counts: SessionCounts | None = None
        self._process_errands: list[Errand] = []
        self._fleet_errands: list[Errand] = []
        if self._sts is not None:
            self._fleet_errands.append(Errand("sts", self._refresh, every_seconds=_REFRESH_SECONDS))
        if settings.tls_reports:
            failure_for = self._sts.failure_for if self._sts is not None else (lambda _: "")
            self.counts = SessionCounts(now=now, failure_for=failure_for)
            self._sender = TlsReportSender.of(settings, store=store, nexthop_for=nexthop_for)
            self._process_errands.append(Errand("tls-counts", self._flush, every_seconds=_FLUSH_SECONDS))
            self._fleet_errands.append(Errand("tls-reports", self._report, every_seconds=_REPORT_SECONDS))

    def on_tick(self) -> None:
        """Do what every process does now and then; returns at once."""
        for errand in self._process_errands:
            errand.poke()

    def on_round(self) -> None:
        """Do what one process does for all now and then; returns at once."""
        for errand in self._fleet_errands:
            errand.poke()

    def close(self) -> None:
        """Begin nothing new, and write the last counts down where the database is there."""
        for errand in (*self._process_errands, *self._fleet_errands):
            errand.stop()
        try:
            self._flush()
        except (InfrastructureError, SchemaError):
            return

    def _flush(self) -> bool:
        if self.counts is None:
            return False
        taken = self.counts.take()
        try:
            self._store.tls_reports.add(taken)
        except Exception:
            self.counts.add(taken)
            raise
        return False

    def _refresh(self) -> bool:
        return self._sts is not None and self._sts.refresh(limit=_REFRESHED) >= _REFRESHED

    def _report(self) -> bool:
        return self._sender.send_due(limit=_REPORTED) >= _REPORTED
