"""MTA-STS with real DNS and HTTPS on loopback: what goes wrong at policy hosts. Source: RFC 8461 §3.3, P-45, C-36."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from mailq.queue.store import Store
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.testing.authority import Authority
from mailq.testing.dnsd import DnsServer
from mailq.testing.https import POLICY_PATH, HttpsServer, Page
from mailq.tls.https import HttpsClient
from mailq.tls.sts import StsPolicy
from mailq.tls.sts_cache import StsCache
from mailq.tls.sts_fetch import PolicyUnavailableError, StsFetcher

HOST = "mta-sts.far.test"
TEXT = b"version: STSv1\r\nmode: enforce\r\nmx: mx.far.test\r\nmax_age: 86400\r\n"
POLICY = StsPolicy("far.test", "1", "enforce", ("mx.far.test",), 86_400)


@dataclass
class Field:
    """A domain with a policy host, and what fetches from it."""

    authority: Authority
    dns: DnsServer
    host: HttpsServer
    settings: Settings

    def client(self) -> HttpsClient:
        return HttpsClient(self.settings, resolver=DnsResolver(self.settings), port=self.host.port)

    def fetcher(self, *, timeout_seconds: float = 10.0) -> StsFetcher:
        return StsFetcher(self.client(), resolver=DnsResolver(self.settings), timeout_seconds=timeout_seconds)

    def announce(self, *records: str) -> None:
        self.dns.set("_mta-sts.far.test", {"TXT": [f'"{record}"' for record in records]})

    def fail(self, *, timeout_seconds: float = 10.0) -> tuple[str, str]:
        with pytest.raises(PolicyUnavailableError) as caught:
            self.fetcher(timeout_seconds=timeout_seconds).fetch("far.test", "1")
        return caught.value.result_type, str(caught.value)


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    authority = Authority(tmp_path)
    zone = {HOST: {"A": ["127.0.0.1"], "AAAA": []}}
    with DnsServer(zone) as dns, HttpsServer(authority.issue(HOST)) as host:
        settings = Settings(
            nameservers=(dns.nameserver,),
            network="loopback",
            mta_sts=True,
            mta_sts_cafile=str(authority.file),
            dns_timeout=timedelta(seconds=5),
        )
        made = Field(authority, dns, host, settings)
        made.announce("v=STSv1; id=1;")
        host.set(Page(body=TEXT))
        yield made


def test_a_policy_is_announced_by_dns_and_fetched_by_https(field: Field) -> None:
    fetcher = field.fetcher()
    assert ("1", POLICY) == (fetcher.announced("far.test"), fetcher.fetch("far.test", "1"))
    (request,) = field.host.requests
    assert ("GET", POLICY_PATH) == (request.method, request.path)
    assert HOST == request.host.partition(":")[0]


def test_an_announcement_of_several_strings_is_one(field: Field) -> None:
    field.dns.set("_mta-sts.far.test", {"TXT": ['"v=STSv1; " "id=20160831;"']})
    assert "20160831" == field.fetcher().announced("far.test")


def test_a_domain_without_records_announces_nothing(field: Field) -> None:
    assert field.fetcher().announced("other.test") is None


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (Page(status=404), ("sts-policy-fetch-error", "the policy host answered 404")),
        (Page(status=500), ("sts-policy-fetch-error", "the policy host answered 500")),
        (
            Page(status=301, location=f"https://{HOST}{POLICY_PATH}?more"),
            ("sts-policy-fetch-error", "the policy host answered 301"),
        ),
        (Page(body=TEXT, media_type="text/html"), ("sts-policy-invalid", "the policy is text/html")),
        (Page(body=b"<html>"), ("sts-policy-invalid", "the policy does not parse: line 1 is no field")),
        (Page(body=b"x" * 70_000), ("sts-policy-fetch-error", "the answer is longer than 65536 bytes")),
    ],
)
def test_an_answer_that_is_no_policy_is_refused(field: Field, page: Page, expected: tuple[str, str]) -> None:
    field.host.set(page)
    assert expected == field.fail()
    assert 1 == len(field.host.requests)


def test_an_answer_that_ends_early_is_refused(field: Field) -> None:
    field.host.set(Page(body=TEXT, cut=True))
    assert "sts-policy-fetch-error" == field.fail()[0]


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ((HOST,), {"expired": True}, "certificate has expired"),
        ((HOST,), {"self_signed": True}, "self-signed certificate"),
        (("far.test",), {}, "Hostname mismatch, certificate is not valid for 'mta-sts.far.test'."),
        (("*.test",), {}, "Hostname mismatch, certificate is not valid for 'mta-sts.far.test'."),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(
    field: Field, names: tuple[str, ...], options: dict[str, bool], words: str
) -> None:
    field.host.present(field.authority.issue(*names, **options))
    expected = ("sts-webpki-invalid", f"the certificate of {HOST} is not valid: {words}")
    assert expected == field.fail()
    assert () == field.host.requests


def test_a_certificate_for_every_subdomain_is_accepted(field: Field) -> None:
    field.host.present(field.authority.issue("*.far.test"))
    assert POLICY == field.fetcher().fetch("far.test", "1")


def test_a_certificate_of_an_unknown_authority_is_refused(field: Field, tmp_path: Path) -> None:
    field.host.present(Authority(tmp_path, "Somebody Else").issue(HOST))
    result_type, text = field.fail()
    assert "sts-webpki-invalid" == result_type
    assert "unable to get local issuer certificate" in text


def test_the_authorities_are_read_again_when_their_file_changes(field: Field, tmp_path: Path) -> None:
    now = [0.0]
    client = HttpsClient(
        field.settings, resolver=DnsResolver(field.settings), port=field.host.port, monotonic=lambda: now[0]
    )
    fetcher = StsFetcher(client, resolver=DnsResolver(field.settings), timeout_seconds=10)
    assert POLICY == fetcher.fetch("far.test", "1")
    other = Authority(tmp_path, "Somebody Else")
    Path(field.settings.mta_sts_cafile).write_bytes(other.file.read_bytes())
    field.host.present(other.issue(HOST))
    now[0] += 60
    assert POLICY == fetcher.fetch("far.test", "1")


@pytest.mark.parametrize("part", ["handshake", "header", "body"])
def test_a_host_that_drips_is_cut_off_at_the_deadline(field: Field, part: str) -> None:
    """Each byte comes in good time; all of them would take longer than a minute."""
    page = Page(body=TEXT * 50, drip=part)  # type: ignore[arg-type]  # one of the literals
    with HttpsServer(field.authority.issue(HOST), page) as slow:
        client = HttpsClient(field.settings, resolver=DnsResolver(field.settings), port=slow.port)
        fetcher = StsFetcher(client, resolver=DnsResolver(field.settings), timeout_seconds=0.5)
        with pytest.raises(PolicyUnavailableError, match=f"{HOST} took too long") as caught:
            fetcher.fetch("far.test", "1")
    assert "sts-policy-fetch-error" == caught.value.result_type


def test_a_host_that_is_down_is_passed_over_for_its_next_address(field: Field) -> None:
    field.dns.set(HOST, {"A": ["127.0.0.77", "127.0.0.1"], "AAAA": []})
    assert POLICY == field.fetcher().fetch("far.test", "1")


def test_a_host_that_is_down_is_said_to_be(field: Field) -> None:
    field.dns.set(HOST, {"A": ["127.0.0.77"], "AAAA": []})
    assert ("sts-policy-fetch-error", f"{HOST}: Connection refused") == field.fail()


def test_a_host_without_an_address_is_said_to_have_none(field: Field) -> None:
    field.dns.set(HOST, None)
    result_type, text = field.fail()
    assert "sts-policy-fetch-error" == result_type
    assert "Host not found" in text


def test_no_other_machine_is_connected_to_where_the_network_is_loopback(field: Field) -> None:
    field.dns.set(HOST, {"A": ["192.0.2.1"], "AAAA": []})
    expected = ("sts-policy-fetch-error", f"{HOST} has no address that may be connected to")
    assert expected == field.fail(timeout_seconds=30)


def test_a_policy_goes_through_its_life_with_everything_real(field: Field, sqlite_url: str) -> None:
    """Fetched, kept while its host is broken and its announcement gone, replaced, taken back."""
    store = Store.open(sqlite_url)

    def cache() -> StsCache:
        return StsCache(field.fetcher(), store.sts_policies, timeout_seconds=10)

    first = cache()
    assert POLICY == first.policy_for("far.test")
    field.dns.set("_mta-sts.far.test", None)
    field.host.set(Page(status=404))
    assert [POLICY, POLICY] == [one.policy_for("far.test") for one in (first, cache())]
    field.announce("v=STSv1; id=2;")
    field.host.set(Page(body=TEXT.replace(b"mx.far", b"new.far")))
    assert 0 == cache().refresh(limit=5)
    store.sts_policies.remember(POLICY)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE mailq_sts_policy SET checked_at = '2026-01-01 00:00:00.000000'")
    renewed = cache().policy_for("far.test")
    assert StsPolicy("far.test", "2", "enforce", ("new.far.test",), 86_400) == renewed
    field.announce("v=STSv1; id=3;")
    field.host.set(Page(body=b"version: STSv1\nmode: none\nmax_age: 86400\n"))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE mailq_sts_policy SET checked_at = '2026-01-01 00:00:00.000000'")
    assert cache().policy_for("far.test") is None
    store.close()
