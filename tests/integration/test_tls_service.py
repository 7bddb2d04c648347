"""What a process does for TLS beside delivering. Source: smtp-delivery C-20, RFC 8460 §4, RFC 8461 §3.3."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailq.errors import SettingError
from mailq.queue.store import Store
from mailq.routing.resolver import DnsResolver
from mailq.security import TlsLevel, TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.status import Endpoint
from mailq.testing.dnsd import DnsServer
from mailq.tls.sts import StsPolicy
from mailq.tls.tlsrpt import SessionKind
from mailq.worker.tls_service import TlsService
from mailq.worker.wiring import build_runtime
from tests.fakes.poll import eventually
from tests.fakes.queue_values import unsynced

POLICY = TlsPolicy(level=TlsLevel.MAY, report_domain="far.test")
RESULT = TlsResult(level=TlsLevel.MAY, source="", protocol="TLSv1.3")
SERVER = Endpoint("mx.far.test", "127.0.0.1", 25)
DAY = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = unsynced(Store.open(sqlite_url))
    yield opened
    opened.close()


def service(store: Store, dns: DnsServer, **options: Any) -> TlsService:
    settings = Settings(nameservers=(dns.nameserver,), network="loopback", myhostname="mail.home.test", **options)
    return TlsService(
        settings,
        store=store,
        resolver=DnsResolver(settings),
        nexthop_for=lambda address: address.rpartition("@")[2],
        now=lambda: datetime.now(UTC),
    )


def counted(store: Store) -> int:
    return sum(report.sessions for report in store.tls_reports.list_reports())


def test_counts_are_written_down_by_the_heartbeat_and_at_the_end(store: Store) -> None:
    with DnsServer({}) as dns:
        security = service(store, dns, tls_reports=True)
        assert security.counts is not None
        security.counts.note(POLICY, RESULT, SERVER)
        security.on_tick()
        eventually(lambda: counted(store) == 1)
        security.counts.note(POLICY, RESULT, SERVER)
        security.close()
    assert 2 == counted(store)


def test_reports_that_are_due_are_sent_by_the_dispatcher(store: Store) -> None:
    store.tls_reports.add({SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found"): 1})
    with DnsServer({"_smtp._tls.far.test": {"TXT": ['"v=TLSRPTv1; rua=mailto:tls@far.test"']}}) as dns:
        security = service(store, dns, tls_reports=True)
        security.on_round()
        eventually(lambda: [one.outcome for one in store.tls_reports.list_reports()] == ["sent"])
        security.close()
    assert 1 == sum(store.counts().values())


def test_policies_are_refreshed_by_the_dispatcher(store: Store) -> None:
    store.sts_policies.remember(StsPolicy("far.test", "1", "enforce", ("mx.far.test",), 86_400))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE mailq_sts_policy SET refresh_at = '2026-01-01 00:00:00.000000'")
    with DnsServer({}) as dns:
        security = service(store, dns, mta_sts=True)
        security.on_round()
        eventually(lambda: _failure(store))
        security.close()
        assert "mta-sts.far.test" in {query.name for query in dns.queries}
    known = store.sts_policies.recall("far.test")
    assert known is not None
    assert known.valid is not None


def test_nothing_is_done_where_nothing_is_on(store: Store) -> None:
    with DnsServer({}) as dns:
        security = service(store, dns)
        security.on_tick()
        security.on_round()
        security.close()
        assert (None, ()) == (security.counts, dns.queries)


def test_authorities_that_cannot_be_read_keep_a_worker_from_starting(store: Store, tmp_path: Path) -> None:
    with DnsServer({}) as dns, pytest.raises(SettingError, match=r"mta_sts_cafile .*none\.pem cannot be read"):
        service(store, dns, mta_sts=True, mta_sts_cafile=str(tmp_path / "none.pem"))


def test_a_worker_delivers_by_what_its_service_knows(sqlite_url: str) -> None:
    settings = Settings(
        database_url=sqlite_url, myhostname="mail.home.test", network="loopback", mta_sts=True, tls_reports=True
    )
    runtime = build_runtime(settings)
    security = runtime.security
    assert security is not None
    assert security.counts is not None
    assert (security.policies, security.counts) == (runtime.ports.tls, runtime.ports.tls_sessions)
    security.counts.note(POLICY, RESULT, SERVER)
    runtime.close()
    store = Store.open(sqlite_url)
    assert 1 == counted(store)
    store.close()


def _failure(store: Store) -> str:
    known = store.sts_policies.recall("far.test")
    return "" if known is None else known.failure
