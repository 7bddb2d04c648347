"""TLS reports on their way out, with real DNS and HTTPS on loopback. Source: RFC 8460 §3, §5."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path

import pytest

from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.testing.authority import Authority
from mailq.testing.dnsd import DnsServer
from mailq.testing.https import HttpsServer, Page
from mailq.tls.tlsrpt import SessionKind
from mailq.worker.tls_reports import TlsReportSender
from tests.fakes.queue_values import take, unsynced
from tests.fakes.tlsrpt_schema import problems_in

DAY = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
COUNT = SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found")
COLLECTOR = "reports.far.test"


@dataclass
class Field:
    """A domain that wants reports, and a queue that owes it one."""

    dns: DnsServer
    collector: HttpsServer
    store: Store
    sender: TlsReportSender

    def want(self, *uris: str) -> None:
        self.dns.set("_smtp._tls.far.test", {"TXT": [f'"v=TLSRPTv1; rua={",".join(uris)}"']})

    @property
    def uri(self) -> str:
        return f"https://{COLLECTOR}:{self.collector.port}/v1/tlsrpt"

    def owed(self) -> list[tuple[str, str]]:
        return [(one.outcome, one.detail) for one in self.store.tls_reports.list_reports()]


@pytest.fixture
def field(tmp_path: Path, sqlite_url: str) -> Iterator[Field]:
    authority = Authority(tmp_path)
    zone = {COLLECTOR: {"A": ["127.0.0.1"], "AAAA": []}}
    with DnsServer(zone) as dns, HttpsServer(authority.issue(COLLECTOR), Page(status=201)) as collector:
        settings = Settings(
            nameservers=(dns.nameserver,),
            network="loopback",
            myhostname="mail.home.test",
            mta_sts_cafile=str(authority.file),
            tls_report_organization="Home",
            dns_timeout=timedelta(seconds=2),
        )
        store = unsynced(Store.open(sqlite_url))
        store.tls_reports.add({COUNT: 7})
        sender = TlsReportSender.of(settings, store=store, nexthop_for=lambda address: address.rpartition("@")[2])
        yield Field(dns, collector, store, sender)
        store.close()


def test_a_report_goes_by_mail_through_the_queue(field: Field) -> None:
    field.want("mailto:tls@far.test")
    assert 1 == field.sender.send_due(limit=10)
    assert [("sent", "mailto:tls@far.test")] == field.owed()
    (request,) = take(field.store).requests
    assert ("", "tls@far.test", True) == (request.sender, request.recipients[0].address, request.tls_optional)
    with field.store.bodies.open(request.queue_id) as body:
        message = message_from_bytes(body.read())
    report = json.loads(gzip.decompress(message.get_payload()[1].get_payload(decode=True)))
    assert [] == problems_in(report)
    assert 7 == report["policies"][0]["summary"]["total-successful-session-count"]
    assert ("Home", "postmaster@mail.home.test") == (report["organization-name"], report["contact-info"])


def test_mail_with_a_report_is_given_up_after_a_day(field: Field) -> None:
    field.want("mailto:tls@far.test")
    (queue_id,) = field.sender.send(DAY, "far.test").queue_ids
    expires_at = field.store.show(queue_id).expires_at
    assert expires_at is not None
    assert expires_at - datetime.now(UTC) < timedelta(days=1)


def test_a_report_goes_by_https(field: Field) -> None:
    field.want(field.uri)
    assert "sent" == field.sender.send(DAY, "far.test").outcome
    (request,) = field.collector.requests
    assert ("POST", "/v1/tlsrpt") == (request.method, request.path)
    assert "application/tlsrpt+gzip" == request.headers["content-type"]
    assert [] == problems_in(json.loads(gzip.decompress(request.body)))


def test_a_report_goes_to_all_who_want_it(field: Field) -> None:
    field.want(field.uri, "mailto:tls@far.test", "mailto:more@far.test")
    sending = field.sender.send(DAY, "far.test")
    assert (1, 2) == (len(field.collector.requests), len(sending.queue_ids))


def test_a_report_is_sent_once(field: Field) -> None:
    field.want(field.uri, "mailto:tls@far.test")
    assert ["sent", "nothing"] == [field.sender.send(DAY, "far.test").outcome for _ in range(2)]
    assert (1, 1) == (len(field.collector.requests), sum(field.store.counts().values()))


def test_a_domain_that_asks_for_nothing_gets_nothing(field: Field) -> None:
    assert "unwanted" == field.sender.send(DAY, "far.test").outcome
    assert [("unwanted", "the domain asks for no reports")] == field.owed()
    assert 0 == field.sender.send_due(limit=10)


def test_a_collector_that_refuses_is_asked_again_for_a_day(field: Field) -> None:
    field.want(field.uri)
    field.collector.set(Page(status=503), "/v1/tlsrpt")
    outcomes = [field.sender.send(DAY, "far.test").outcome for _ in range(24)]
    assert ["later"] * 23 + ["failed"] == outcomes
    assert [("failed", f"{field.uri}: it answered 503")] == field.owed()


def test_a_collector_that_is_back_gets_its_report(field: Field) -> None:
    field.want(field.uri)
    field.collector.set(Page(status=503), "/v1/tlsrpt")
    assert "later" == field.sender.send(DAY, "far.test").outcome
    field.collector.set(Page(status=200), "/v1/tlsrpt")
    assert "sent" == field.sender.send(DAY, "far.test").outcome


def test_name_servers_that_do_not_answer_put_a_report_off(field: Field) -> None:
    field.dns.set("_smtp._tls.far.test", "SERVFAIL")
    assert "later" == field.sender.send(DAY, "far.test").outcome
    assert 0 == field.sender.send_due(limit=10)


def test_one_collector_out_of_order_does_not_keep_the_others_waiting(field: Field) -> None:
    field.want(field.uri, "mailto:tls@far.test")
    field.collector.set(Page(status=503), "/v1/tlsrpt")
    assert "sent" == field.sender.send(DAY, "far.test").outcome
    assert [("sent", f"mailto:tls@far.test; {field.uri}: it answered 503")] == field.owed()


def test_a_preview_changes_nothing(field: Field) -> None:
    field.want("mailto:tls@far.test")
    preview = field.sender.preview(DAY, "far.test")
    assert preview.report is not None
    assert ([], "mailto:tls@far.test") == (problems_in(preview.report), preview.detail)
    assert [("", "")] == field.owed()


def test_days_long_past_are_forgotten(field: Field) -> None:
    long_ago = (datetime.now(UTC) - timedelta(days=40)).date().isoformat()
    field.store.tls_reports.add({replace(COUNT, day=long_ago): 1})
    field.sender.send_due(limit=10)
    assert long_ago not in {one.day for one in field.store.tls_reports.list_reports()}
