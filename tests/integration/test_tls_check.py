"""``mailq tls-check``, ``mailq tlsrpt`` and delivery by MTA-STS, with real servers on loopback. Source: P-45, C-36."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mailq.cli import main
from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.queue.store import Store
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.status import Bounced, Deferred, Delivered, Outcome
from mailq.testing.authority import Authority
from mailq.testing.dnsd import DnsServer
from mailq.testing.https import HttpsServer, Page
from mailq.testing.smtpd import ScriptedSmtpServer
from mailq.tls.https import HttpsClient
from mailq.tls.policies import Policies
from mailq.tls.sts_cache import StsCache
from mailq.tls.sts_fetch import StsFetcher
from mailq.tls.tlsrpt import SessionKind
from mailq.tls.tlsrpt_collect import SessionCounts
from mailq.worker.wiring import SystemClock
from tests.fakes.queue_values import a_message, finish, recipients_of, sent, take, unsynced

MX = "mx.far.test"
HOST = "mta-sts.far.test"
DAY = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()


@dataclass
class Domain:
    """A domain with a policy, a mail server, and a queue that has mail for it."""

    authority: Authority
    dns: DnsServer
    host: HttpsServer
    mail: ScriptedSmtpServer
    store: Store
    settings: Settings

    def publish(self, mode: str, *names: str) -> None:
        self.dns.set("_mta-sts.far.test", {"TXT": ['"v=STSv1; id=1;"']})
        lines = "".join(f"mx: {name}\r\n" for name in names)
        self.host.set(Page(body=f"version: STSv1\r\nmode: {mode}\r\n{lines}max_age: 86400\r\n".encode()))

    def deliver(self) -> tuple[Outcome, list[SessionKind]]:
        """Deliver one message as a worker would; return its outcome, and what was counted."""
        resolver = DnsResolver(self.settings)
        client = HttpsClient(self.settings, resolver=resolver, port=self.host.port)
        sts = StsCache(
            StsFetcher(client, resolver=resolver, timeout_seconds=10), self.store.sts_policies, timeout_seconds=10
        )
        clock = SystemClock()
        counts = SessionCounts(now=clock.now, failure_for=sts.failure_for)
        ports = Ports(
            clock=clock,
            resolver=resolver,
            connector=SocketConnector(self.settings),
            bodies=self.store.bodies,
            rng=Random(1),
            tls=Policies(self.settings, resolver=resolver, sts=sts),
            tls_sessions=counts,
        )
        self.store.insert([a_message("bob@far.test")])
        (request,) = take(self.store).requests
        report = deliver(
            request,
            ports=ports,
            settings=self.settings,
            sessions=SessionCache(clock),
            on_settled=lambda _: None,
        )
        (outcome,) = report.outcomes.values()
        return outcome, list(counts.take())


def a_domain(tmp_path: Path, url: str, certificate: Callable[[Authority], Path | None]) -> Iterator[Domain]:
    authority = Authority(tmp_path)
    zone: dict[str, Any] = {
        "far.test": {"MX": [f"10 {MX}"]},
        MX: {"A": ["127.0.0.1"], "AAAA": []},
        HOST: {"A": ["127.0.0.1"], "AAAA": []},
    }
    with (
        DnsServer(zone) as dns,
        HttpsServer(authority.issue(HOST)) as host,
        ScriptedSmtpServer(certificate=certificate(authority)) as mail,
    ):
        settings = Settings(
            database_url=url,
            nameservers=(dns.nameserver,),
            network="loopback",
            inet_interfaces=("127.0.0.77",),
            myhostname="mail.home.test",
            tcp_port=str(mail.port),
            mta_sts=True,
            mta_sts_cafile=str(authority.file),
            tls_cafile=str(authority.file),
            dns_timeout=timedelta(seconds=5),
        )
        store = unsynced(Store.open(url))
        yield Domain(authority, dns, host, mail, store, settings)
        store.close()


@pytest.fixture
def domain(tmp_path: Path, sqlite_url: str) -> Iterator[Domain]:
    """Its mail server has a good certificate."""
    yield from a_domain(tmp_path, sqlite_url, lambda authority: authority.issue(MX))


@pytest.fixture
def pretender(tmp_path: Path, sqlite_url: str) -> Iterator[Domain]:
    """Its mail server has a certificate for another name."""
    yield from a_domain(tmp_path, sqlite_url, lambda authority: authority.issue("other.test"))


@pytest.fixture
def plain(tmp_path: Path, sqlite_url: str) -> Iterator[Domain]:
    """Its mail server knows no TLS."""
    yield from a_domain(tmp_path, sqlite_url, lambda _: None)


def text_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Deferred | Bounced)
    return f"{outcome.failure.status} {outcome.failure.reason}"


def test_mail_goes_to_a_server_that_the_policy_names_and_that_proves_its_name(domain: Domain) -> None:
    domain.publish("enforce", MX)
    outcome, counted = domain.deliver()
    assert isinstance(outcome, Delivered)
    assert outcome.facts is not None
    assert outcome.facts.tls is not None
    assert ("MTA-STS", f"trusted chain, name {MX}") == (outcome.facts.tls.source, outcome.facts.tls.verified_by)
    assert [("sts", "", "far.test")] == [(one.policy_type, one.result_type, one.domain) for one in counted]
    assert "mode: enforce" in counted[0].policy


def test_a_server_that_the_policy_does_not_name_gets_no_mail(domain: Domain) -> None:
    """Source: smtp-delivery C-36."""
    domain.publish("enforce", "mx.elsewhere.test")
    outcome, counted = domain.deliver()
    assert isinstance(outcome, Deferred)
    assert [("sts", "validation-failure")] == [(one.policy_type, one.result_type) for one in counted]
    assert [] == list(domain.mail.deliveries)


def test_a_server_that_does_not_prove_its_name_gets_no_mail(pretender: Domain) -> None:
    pretender.publish("enforce", MX)
    outcome, counted = pretender.deliver()
    assert "4.7.5" == text_of(outcome)[:5]
    assert ["certificate-host-mismatch"] == [one.result_type for one in counted]
    assert [] == list(pretender.mail.deliveries)


def test_a_server_from_which_tls_is_stripped_gets_no_mail(plain: Domain) -> None:
    plain.publish("enforce", MX)
    outcome, counted = plain.deliver()
    assert isinstance(outcome, Deferred)
    assert ["starttls-not-supported"] == [one.result_type for one in counted]


def test_a_policy_in_testing_refuses_nothing_and_counts_what_it_would_have(pretender: Domain) -> None:
    """Source: RFC 8461 §5."""
    pretender.publish("testing", MX)
    outcome, counted = pretender.deliver()
    assert isinstance(outcome, Delivered)
    assert [("sts", "certificate-host-mismatch")] == [(one.policy_type, one.result_type) for one in counted]


def test_a_policy_that_cannot_be_fetched_does_not_hold_mail_up_and_is_counted(domain: Domain) -> None:
    domain.publish("enforce", MX)
    domain.host.present(domain.authority.issue(HOST, expired=True))
    outcome, counted = domain.deliver()
    assert isinstance(outcome, Delivered)
    assert [("sts", "sts-webpki-invalid")] == [(one.policy_type, one.result_type) for one in counted]


def run(domain: Domain, *arguments: str, **settings: str) -> Result:
    environ = {
        "MAILQ_DATABASE_URL": domain.settings.database_url,
        "MAILQ_NAMESERVERS": domain.dns.nameserver,
        "MAILQ_NETWORK": "loopback",
        "MAILQ_INET_INTERFACES": "127.0.0.77",
        "MAILQ_MYHOSTNAME": "mail.home.test",
        "MAILQ_TCP_PORT": domain.settings.tcp_port,
        "MAILQ_TLS_CAFILE": domain.settings.tls_cafile,
        "COLUMNS": "200",
        **{f"MAILQ_{name.upper()}": value for name, value in settings.items()},
    }
    return CliRunner().invoke(main, list(arguments), env=environ)


def test_a_domain_is_checked_server_by_server_without_mail(domain: Domain) -> None:
    result = run(domain, "tls-check", "far.test", tls_security_level="verify")
    assert 0 == result.exit_code, result.output
    lines = result.stdout.splitlines()
    assert "far.test: MX records not validated" == lines[0]
    assert f"{MX}[127.0.0.1]:{domain.mail.port}, preference 10" == lines[2]
    assert f"  must have:   verify by the name {MX} (tls_security_level)" == lines[3]
    assert f"{MX}, verified by trusted chain, name {MX}" in lines[4]
    assert f"  certificate: {MX}; expires in 30d" == lines[5]
    assert ["  REQUIRETLS:  not offered", "  mail:        would go there"] == lines[6:]
    assert [] == list(domain.mail.deliveries)


def test_a_domain_whose_server_does_not_prove_itself_is_said_to_get_no_mail(pretender: Domain) -> None:
    result = run(pretender, "tls-check", "far.test", "--json", tls_security_level="verify")
    assert 1 == result.exit_code, result.output
    (server,) = json.loads(result.stdout)["servers"]
    assert ["other.test"] == server["names"]
    assert "certificate bears none of the names mx.far.test" in server["tls"]["problem"]
    assert "not verified" in server["problem"].lower()


def test_a_domain_that_does_not_exist_is_said_not_to(domain: Domain) -> None:
    result = run(domain, "tls-check", "nowhere.test")
    assert 1 == result.exit_code
    assert "Host not found" in result.stdout


def test_a_message_that_requires_tls_is_checked_for(domain: Domain) -> None:
    result = run(domain, "tls-check", "far.test", "--require-tls", tls_security_level="verify")
    assert 1 == result.exit_code, result.output
    assert "REQUIRETLS" in result.stdout


def test_what_is_no_destination_is_a_mistake_of_the_caller(domain: Domain) -> None:
    assert 78 == run(domain, "tls-check", "[half").exit_code


def test_reports_are_listed_previewed_and_sent_from_the_command_line(domain: Domain) -> None:
    domain.store.tls_reports.add({SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found"): 7})
    domain.dns.set("_smtp._tls.far.test", {"TXT": ['"v=TLSRPTv1; rua=mailto:tls@far.test"']})
    assert f"{DAY}  far.test  7         0       not due yet  -" == run(domain, "tlsrpt", "show").stdout.splitlines()[1]
    preview = json.loads(run(domain, "tlsrpt", "send", "--dry-run", "--json", "--domain", "far.test").stdout)
    assert 7 == preview["report"]["policies"][0]["summary"]["total-successful-session-count"]
    expected = f"{DAY} far.test: sent, mailto:tls@far.test"
    assert expected == run(domain, "tlsrpt", "send", "--day", DAY).stdout.strip()
    assert "" == run(domain, "tlsrpt", "send").stdout
    assert 1 == sum(domain.store.counts().values())
    assert 2 == run(domain, "tlsrpt", "show", "--day", "yesterday").exit_code


def test_a_report_that_cannot_be_sent_ends_in_a_failure(domain: Domain) -> None:
    domain.store.tls_reports.add({SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found"): 7})
    domain.dns.set("_smtp._tls.far.test", "SERVFAIL")
    result = run(domain, "tlsrpt", "send", dns_timeout="500ms")
    assert 1 == result.exit_code
    assert f"{DAY} far.test: later" in result.stdout


def test_history_tells_people_how_mail_was_encrypted(domain: Domain) -> None:
    domain.publish("enforce", MX)
    queue_id = run(domain, "send", "--require-tls", "--from", "a@home.test", "--to", "b@far.test", "--text", "x").stdout
    assert "TLS:          required" in run(domain, "show", queue_id.strip()).stdout
    lease = take(domain.store)
    result = sent(recipients_of(lease)[0])
    assert isinstance(result.outcome, Delivered)
    outcome, _ = domain.deliver()
    assert isinstance(outcome, Delivered)
    finish(domain.store, [replace(result, outcome=replace(result.outcome, facts=outcome.facts))], lease)
    lines = run(domain, "show", queue_id.strip()).stdout
    assert re.search(rf"TLS: TLSv1\.3 TLS_\S+ {MX}, verified by trusted chain, name {MX}$", lines, re.MULTILINE)


@pytest.mark.parametrize("name", ["tls_cafile", "mta_sts_cafile"])
def test_doctor_finds_authorities_that_cannot_be_read(domain: Domain, name: str) -> None:
    result = run(domain, "doctor", mta_sts="yes", **{name: "/nowhere/ca.pem"})
    assert 78 == result.exit_code
    assert f"FAIL  TLS authorities: {name} /nowhere/ca.pem cannot be read: No such file or directory" in result.stdout


def test_doctor_says_what_is_on(domain: Domain) -> None:
    result = run(domain, "doctor", mta_sts="yes")
    assert "readable; MTA-STS policies are followed; TLS reports are not sent (tls_reports)" in result.stdout
