"""What is counted for TLS reports, and the report. Source: RFC 8460 §3 to §5, smtp-delivery C-20."""

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any

import pytest

from mailq.security import TlsaRecord, TlsLevel, TlsPolicy, TlsResult
from mailq.status import Endpoint
from mailq.tls.tlsrpt import (
    SPREAD,
    Reporter,
    SessionKind,
    build_report,
    due_at,
    kind_of,
    mailbox_of,
    packed,
    report_addresses,
)
from mailq.tls.tlsrpt_collect import SessionCounts
from mailq.tls.tlsrpt_mail import compose_report_mail
from tests.fakes.tlsrpt_schema import problems_in

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = "2026-03-01"
WORDS = ("version: STSv1", "mode: enforce", "mx: mx.far.test", "mx: *.far.test", "max_age: 86400")
TLSA = TlsaRecord(3, 1, 1, b"\1" * 32)
REPORTER = Reporter(organization="Home", contact="postmaster@home.test", hostname="mail.home.test")
SERVER = Endpoint("mx.far.test", "192.0.2.9", 25)
STS = TlsPolicy(level=TlsLevel.VERIFY, report_type="sts", report_domain="far.test", report_strings=WORDS)
DANE = TlsPolicy(
    level=TlsLevel.DANE, report_type="tlsa", report_domain="far.test", report_strings=(str(TLSA),), tlsa=(TLSA,)
)
OPEN = TlsPolicy(level=TlsLevel.MAY, report_domain="far.test")
NOT_OFFERED = "STARTTLS not offered"


def seen(of: TlsPolicy, problem: str = "", *, encrypted: bool = True, verified: str = "") -> SessionKind | None:
    result = TlsResult(
        level=of.level,
        source=of.source,
        protocol="TLSv1.3" if encrypted else "",
        verified_by=verified,
        problem=problem,
    )
    return kind_of(of, result, now=NOON, host=SERVER.host, address=SERVER.address, sending_ip="192.0.2.1")


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (STS, SessionKind(day=DAY, domain="far.test", policy_type="sts", policy=WORDS)),
        (DANE, SessionKind(day=DAY, domain="far.test", policy_type="tlsa", policy=(str(TLSA),))),
        (OPEN, SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found")),
    ],
)
def test_a_session_that_went_well_counts_for_its_policy_alone(of: TlsPolicy, expected: SessionKind) -> None:
    assert expected == seen(of, verified="trusted chain, name mx.far.test")


def test_a_failure_counts_with_server_address_and_reason() -> None:
    expected = SessionKind(
        day=DAY,
        domain="far.test",
        policy_type="sts",
        policy=WORDS,
        result_type="starttls-not-supported",
        receiving_host="mx.far.test",
        receiving_ip="192.0.2.9",
        sending_ip="192.0.2.1",
        reason=NOT_OFFERED,
    )
    assert expected == seen(STS, NOT_OFFERED, encrypted=False)


@pytest.mark.parametrize(
    ("of", "problem", "encrypted", "expected"),
    [
        (OPEN, NOT_OFFERED, False, "starttls-not-supported"),
        (STS, "STARTTLS refused: 454 4.7.0 not now", False, "starttls-not-supported"),
        (STS, "handshake failure: wrong version number", False, "validation-failure"),
        (STS, "certificate has expired", True, "certificate-expired"),
        (STS, "certificate bears none of the names mx.far.test; it has a.test", True, "certificate-host-mismatch"),
        (STS, "self-signed certificate", True, "certificate-not-trusted"),
        (STS, "self-signed certificate in certificate chain", True, "certificate-not-trusted"),
        (STS, "unable to get local issuer certificate", True, "certificate-not-trusted"),
        (STS, "certificate is not yet valid", True, "validation-failure"),
        (STS, "mx.far.test is no mail exchanger by the MTA-STS policy of far.test", False, "validation-failure"),
        (DANE, "no TLSA record matches the server's certificates", True, "validation-failure"),
        (DANE, "TLSA lookup error for mx.far.test:25", False, "dnssec-invalid"),
        (DANE, "TLSA records unusable", False, "tlsa-invalid"),
        (DANE, "no TLSA records found", False, "dane-required"),
        (DANE, "non DNSSEC destination", False, "dane-required"),
    ],
)
def test_each_problem_has_its_type(of: TlsPolicy, problem: str, expected: str, *, encrypted: bool) -> None:
    """Source: RFC 8460 §4.3."""
    kind = seen(of, problem, encrypted=encrypted)
    assert kind is not None
    assert expected == kind.result_type


def test_records_that_nobody_can_use_are_told_of_though_the_session_was_encrypted() -> None:
    unusable = TlsPolicy(
        level=TlsLevel.ENCRYPT, report_type="tlsa", report_domain="far.test", report_strings=("0 0 1 ab",)
    )
    kind = seen(unusable)
    assert kind is not None
    assert ("tlsa", "tlsa-invalid") == (kind.policy_type, kind.result_type)


def test_a_domain_that_was_asked_for_records_and_has_none_has_no_policy() -> None:
    asked = TlsPolicy(level=TlsLevel.MAY, report_type="tlsa", report_domain="far.test")
    assert SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found") == seen(asked)


@pytest.mark.parametrize(
    ("of", "problem"),
    [
        (TlsPolicy(level=TlsLevel.MAY), NOT_OFFERED),
        (TlsPolicy(level=TlsLevel.NONE, report_domain="far.test"), ""),
        (OPEN, "client TLS configuration problem"),
        (OPEN, "TLS failed before"),
        (STS, "the message requires TLS, but the TLS policy for mx.far.test disables encryption"),
    ],
)
def test_what_says_nothing_about_the_domain_is_not_counted(of: TlsPolicy, problem: str) -> None:
    """Source: smtp-delivery C-20."""
    assert seen(of, problem, encrypted=False) is None


def test_a_day_is_that_of_utc() -> None:
    result = TlsResult(level=TlsLevel.MAY, source="", protocol="TLSv1.3")
    late = datetime.fromisoformat("2026-03-02T01:00:00+02:00")
    kind = kind_of(OPEN, result, now=late, host="", address="", sending_ip="")
    assert kind is not None
    assert DAY == kind.day


def test_reports_leave_within_hours_after_midnight_and_not_all_at_once() -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    moments = [due_at(DAY, f"far{number}.test") for number in range(100)]
    assert all(midnight <= moment < midnight + SPREAD for moment in moments)
    assert len(set(moments)) > 90


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["v=TLSRPTv1; rua=mailto:reports@far.test"], ("mailto:reports@far.test",)),
        (["v=TLSRPTv1;rua=mailto:reports@far.test;"], ("mailto:reports@far.test",)),
        (
            ["v=spf1 -all", "v=TLSRPTv1; x=y; rua=https://far.test/v1/tlsrpt , mailto:a%2Cb@far.test;"],
            ("https://far.test/v1/tlsrpt", "mailto:a%2Cb@far.test"),
        ),
        (["v=TLSRPTv1; rua=ftp://far.test,mailto:nobody,https:///x,http://far.test/"], ()),
        (["v=TLSRPTv1; rua=https://far.test:99999/"], ()),
        (["v=TLSRPTv1; rua=mailto:a@far.test", "v=TLSRPTv1; rua=mailto:b@far.test"], ()),
        (["v=TLSRPTv1"], ()),
        (["v=TLSRPTv2; rua=mailto:a@far.test"], ()),
        (["v=TLSRPTv1; no field; rua=mailto:a@far.test"], ()),
        ([], ()),
    ],
)
def test_a_domain_says_where_it_wants_reports(records: list[str], expected: tuple[str, ...]) -> None:
    assert expected == report_addresses(records)


def test_a_domain_cannot_have_us_write_to_thousands() -> None:
    """Source: RFC 8460 §7: reports are no way to send mail to others."""
    listed = ",".join(f"mailto:user{number}@elsewhere.test" for number in range(3000))
    assert 5 == len(report_addresses([f"v=TLSRPTv1; rua={listed}"]))


def test_a_mailbox_is_taken_out_of_its_uri() -> None:
    assert ("a,b@far.test", "") == (mailbox_of("mailto:a%2Cb@far.test?subject=x"), mailbox_of("https://far.test/"))


def a_failure(**fields: str) -> SessionKind:
    values = {
        "result_type": "certificate-expired",
        "receiving_host": "mx.far.test",
        "receiving_ip": "192.0.2.9",
        "sending_ip": "192.0.2.1",
        "reason": "certificate has expired",
    }
    return SessionKind(day=DAY, domain="far.test", policy_type="sts", policy=WORDS, **(values | fields))


def a_report() -> dict[str, Any]:
    counts: Mapping[SessionKind, int] = {
        SessionKind(day=DAY, domain="far.test", policy_type="sts", policy=WORDS): 5326,
        a_failure(): 100,
        a_failure(result_type="starttls-not-supported", sending_ip="", reason=NOT_OFFERED): 200,
        SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found"): 1,
    }
    return build_report(DAY, "far.test", counts, REPORTER)


def test_a_report_has_what_the_rfc_asks_for() -> None:
    """Source: RFC 8460 §4.4."""
    policy_of_sts = {
        "policy-type": "sts",
        "policy-string": list(WORDS),
        "policy-domain": "far.test",
        "mx-host": ["mx.far.test", "*.far.test"],
    }
    details = [
        {
            "result-type": "certificate-expired",
            "sending-mta-ip": "192.0.2.1",
            "receiving-mx-hostname": "mx.far.test",
            "receiving-ip": "192.0.2.9",
            "failure-reason-code": "certificate has expired",
            "failed-session-count": 100,
        },
        {
            "result-type": "starttls-not-supported",
            "receiving-mx-hostname": "mx.far.test",
            "receiving-ip": "192.0.2.9",
            "failure-reason-code": NOT_OFFERED,
            "failed-session-count": 200,
        },
    ]
    expected = {
        "organization-name": "Home",
        "date-range": {"start-datetime": "2026-03-01T00:00:00Z", "end-datetime": "2026-03-01T23:59:59Z"},
        "contact-info": "postmaster@home.test",
        "report-id": "2026-03-01.far.test@mail.home.test",
        "policies": [
            {
                "policy": policy_of_sts,
                "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 300},
                "failure-details": details,
            },
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "far.test"},
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
            },
        ],
    }
    assert expected == a_report()


def test_a_report_passes_a_check_written_from_the_rfc() -> None:
    assert [] == problems_in(json.loads(gzip.decompress(packed(a_report()))))


def test_the_check_finds_what_is_wrong() -> None:
    broken = a_report()
    broken["policies"][0]["summary"]["total-failure-session-count"] = 1
    del broken["report-id"]
    broken["policies"][1]["policy"]["policy-type"] = "dane"
    assert 3 == len(problems_in(broken))


def test_a_report_is_packed_the_same_each_time() -> None:
    assert packed(a_report()) == packed(a_report())


def test_a_report_by_mail_is_told_by_its_header_and_its_file_name() -> None:
    """Source: RFC 8460 §5.1, §5.3."""
    content = compose_report_mail(
        "reports@far.test",
        day=DAY,
        domain="far.test",
        reporter=REPORTER,
        report=packed(a_report()),
        message_id="1@mail.home.test",
        now=NOON,
    )
    assert content.count(b"\n") == content.count(b"\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    message = message_from_bytes(content, policy=policy.default)
    expected = {
        "From": "postmaster@home.test",
        "To": "reports@far.test",
        "Subject": "Report Domain: far.test Submitter: mail.home.test Report-ID: <2026-03-01.far.test@mail.home.test>",
        "TLS-Report-Domain": "far.test",
        "TLS-Report-Submitter": "mail.home.test",
        "TLS-Required": "No",
        "Message-ID": "<1@mail.home.test>",
        "Date": "Sun, 01 Mar 2026 12:00:00 +0000",
    }
    assert expected == {name: message[name] for name in expected}
    assert ("multipart/report", "tlsrpt") == (message.get_content_type(), message.get_param("report-type"))
    text, attachment = message.iter_parts()  # type: ignore[attr-defined]  # the default policy makes EmailMessages
    assert ["text/plain", "application/tlsrpt+gzip"] == [text.get_content_type(), attachment.get_content_type()]
    assert "mail.home.test!far.test!1772323200!1772409599.json.gz" == attachment.get_filename()
    assert a_report() == json.loads(gzip.decompress(attachment.get_payload(decode=True)))


class Notebook:
    """Counts at a time and with missing policies that a test sets."""

    def __init__(self) -> None:
        self.now = NOON
        self.missing = ""
        self.counts = SessionCounts(now=lambda: self.now, failure_for=lambda _: self.missing)

    def note(self, of: TlsPolicy, problem: str = "") -> None:
        result = TlsResult(level=of.level, source="", protocol="" if problem else "TLSv1.3", problem=problem)
        self.counts.note(of, result, Endpoint("mx.far.test", "127.0.0.1", 25))


def test_equal_sessions_are_counted_and_taken_once() -> None:
    notebook = Notebook()
    for _ in range(3):
        notebook.note(OPEN)
    notebook.note(TlsPolicy(level=TlsLevel.MAY))
    success = SessionKind(day=DAY, domain="far.test", policy_type="no-policy-found")
    assert {success: 3} == notebook.counts.take()
    assert {} == notebook.counts.take()


def test_days_are_counted_apart() -> None:
    notebook = Notebook()
    notebook.note(OPEN)
    notebook.now += timedelta(days=1)
    notebook.note(OPEN)
    assert [DAY, "2026-03-02"] == [kind.day for kind in notebook.counts.take()]


def test_a_failure_says_from_which_address_we_connected() -> None:
    notebook = Notebook()
    notebook.note(OPEN, NOT_OFFERED)
    assert ["127.0.0.1"] == [kind.sending_ip for kind in notebook.counts.take()]


def test_a_policy_that_could_not_be_had_is_what_is_counted() -> None:
    notebook = Notebook()
    notebook.missing = "sts-webpki-invalid: the certificate of mta-sts.far.test is not valid: certificate has expired"
    notebook.note(OPEN)
    (kind,) = notebook.counts.take()
    assert ("sts", "sts-webpki-invalid") == (kind.policy_type, kind.result_type)


def test_what_could_not_be_written_down_is_counted_again() -> None:
    notebook = Notebook()
    notebook.note(OPEN)
    taken = notebook.counts.take()
    notebook.note(OPEN)
    notebook.counts.add(taken)
    assert [2] == list(notebook.counts.take().values())


def test_the_number_of_different_sessions_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    counts = SessionCounts(now=lambda: NOON)
    kinds = (SessionKind(day=DAY, domain=f"far{number}.test", policy_type="sts") for number in range(20_003))
    counts.add(dict.fromkeys(kinds, 1))
    assert 20_000 == len(counts.take())
    assert "3 sessions are missing from TLS reports" in caplog.text
