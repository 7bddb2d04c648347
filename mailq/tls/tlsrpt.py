"""TLS reports: what is counted, what a domain asks for, and the report itself. No input or output.

A session is counted under the day, the domain and the policy it was held to:
as a success, or as a failure of one of the types that the RFC names. Once a
day has ended, its counts become one report for each domain that asks for it.

Invariant: a report's sums are those of its counts, and it is complete: a domain gets nobody else's.

Source: RFC 8460 §3, §4.2 to §4.4, §5.1; smtp-delivery C-20.
"""

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from zlib import crc32

from mailq.security import TlsLevel, TlsPolicy, TlsResult

SPREAD: Final = timedelta(hours=4)
"""Reports leave at moments within this after midnight, each domain at its own. Source: RFC 8460 §4.1."""

_REASON_LIMIT: Final = 200
_MOST_ADDRESSES: Final = 5
_VERSION: Final = re.compile(r"v=TLSRPTv1[ \t]*;")
_FIELD: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e \t=]+)")

_BY_WORDS: Final = (
    ("STARTTLS not offered", "starttls-not-supported"),
    ("STARTTLS refused", "starttls-not-supported"),
    ("TLSA lookup error", "dnssec-invalid"),
    ("TLSA records unusable", "tlsa-invalid"),
    ("no TLSA records found", "dane-required"),
    ("non DNSSEC destination", "dane-required"),
    ("certificate has expired", "certificate-expired"),
    ("certificate bears none of the names", "certificate-host-mismatch"),
    ("hostname mismatch", "certificate-host-mismatch"),
    ("self-signed certificate", "certificate-not-trusted"),
    ("self signed certificate", "certificate-not-trusted"),
    ("unable to get", "certificate-not-trusted"),
    ("unable to verify", "certificate-not-trusted"),
    ("certificate is not trusted", "certificate-not-trusted"),
    ("permitted subtree violation", "certificate-not-trusted"),
    ("excluded subtree violation", "certificate-not-trusted"),
    ("invalid CA certificate", "certificate-not-trusted"),
    ("path length constraint exceeded", "certificate-not-trusted"),
)
"""Types of failures, by what the problem of a session begins with or holds; any other is validation-failure."""

_OWN_DOING: Final = ("client TLS configuration problem", "wrapper mode needs", "REQUIRETLS", "the message requires TLS")
"""What says nothing about the domain."""
_REPEATED: Final = "TLS failed before"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKind:
    """What sessions are counted by.

    Attributes:
        day: UTC, ``YYYY-MM-DD``.
        domain: Whose policy it was.
        policy_type: ``tlsa``, ``sts`` or ``no-policy-found``.
        policy: In its own words.
        result_type: Of a failure, as the RFC names it; empty: success, and then what follows is empty, too.
        receiving_host: The server's name.
        receiving_ip: Its address.
        sending_ip: Our own; empty where it is not known.
        reason: For people.
    """

    day: str
    domain: str
    policy_type: str
    policy: tuple[str, ...] = ()
    result_type: str = ""
    receiving_host: str = ""
    receiving_ip: str = ""
    sending_ip: str = ""
    reason: str = ""


def kind_of(
    policy: TlsPolicy, result: TlsResult, *, now: datetime, host: str, address: str, sending_ip: str
) -> SessionKind | None:
    """Return what a session counts as; None where it is not counted.

    Args:
        policy: That the server was held to.
        result: What the session's encryption was, or why there was no session.
        now: Aware.
        host: The server's name.
        address: Its IP address.
        sending_ip: Our own, empty where it is not known.

    Source: RFC 8460 §4.3, smtp-delivery C-20.
    """
    if not policy.report_domain or policy.level is TlsLevel.NONE or result.problem.startswith((*_OWN_DOING, _REPEATED)):
        return None
    result_type = _result_type(policy, result)
    known = policy.report_type != "tlsa" or policy.report_strings or result_type
    failed: dict[str, str] = {}
    if result_type:
        failed = {
            "result_type": result_type,
            "receiving_host": host,
            "receiving_ip": address,
            "sending_ip": sending_ip,
            "reason": result.problem[:_REASON_LIMIT],
        }
    return SessionKind(
        day=day_of(now),
        domain=policy.report_domain,
        policy_type=policy.report_type if known else "no-policy-found",
        policy=policy.report_strings if known else (),
        **failed,
    )


def missing_policy(domain: str, failure: str, *, now: datetime) -> SessionKind | None:
    """Return what a session counts as whose domain's MTA-STS policy could not be had.

    Args:
        domain: Whose policy it is.
        failure: Type, colon, text; empty: nothing failed, and None is returned.
        now: Aware.
    """
    result_type, _, text = failure.partition(": ")
    if not result_type:
        return None
    return SessionKind(
        day=day_of(now), domain=domain, policy_type="sts", result_type=result_type, reason=text[:_REASON_LIMIT]
    )


def day_of(now: datetime) -> str:
    """Return the UTC day of an instant as text."""
    return now.astimezone(UTC).date().isoformat()


def due_at(day: str, domain: str) -> datetime:
    """Return when the report of a day leaves: some time after its end, each domain's at its own."""
    end = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(days=1)
    return end + timedelta(seconds=crc32(f"{day} {domain}".encode()) % SPREAD.total_seconds())


def report_addresses(records: Iterable[str]) -> tuple[str, ...]:
    """Return where a domain wants reports, as ``mailto:`` and ``https:`` URIs in its order; none: it wants none.

    The first five count: a domain that lists thousands of other people's addresses is no reason to write to them.

    Args:
        records: TXT records of ``_smtp._tls.DOMAIN``, each with its strings joined.

    Source: RFC 8460 §3.
    """
    wishes = [record for record in records if _VERSION.match(record)]
    if len(wishes) != 1:
        return ()
    fields = [field.strip(" \t") for field in wishes[0].split(";")[1:]]
    if fields and not fields[-1]:
        fields.pop()
    found: dict[str, str] = {}
    for field in fields:
        match = _FIELD.fullmatch(field)
        if match is None:
            return ()
        found.setdefault(match[1], match[2])
    uris = (uri.strip(" \t") for uri in found.get("rua", "").split(","))
    return tuple(uri for uri in uris if mailbox_of(uri) or _is_https(uri))[:_MOST_ADDRESSES]


def mailbox_of(uri: str) -> str:
    """Return the address of a ``mailto:`` URI; empty for any other."""
    scheme, _, rest = uri.partition(":")
    address = unquote(rest.partition("?")[0])
    return (
        address if scheme.lower() == "mailto" and "@" in address and address.isascii() and address.isprintable() else ""
    )


def _is_https(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        usable = uri.isprintable() and " " not in uri and bool(parts.hostname)
        return usable and parts.scheme.lower() == "https" and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who reports.

    Attributes:
        organization: Its name.
        contact: Its address.
        hostname: Own name of the sending host.
    """

    organization: str
    contact: str
    hostname: str


def report_id(day: str, domain: str, reporter: Reporter) -> str:
    """Return the name of a report: the same each time, so that one that is sent twice is known."""
    return f"{day}.{domain}@{reporter.hostname}"


def build_report(day: str, domain: str, counts: Mapping[SessionKind, int], reporter: Reporter) -> dict[str, Any]:
    """Return the report on a day and domain, as JSON has it.

    Args:
        day: UTC.
        domain: Whose.
        counts: Of this day and domain, and no other.
        reporter: Who says so.

    Source: RFC 8460 §4.4.
    """
    policies = dict.fromkeys((kind.policy_type, kind.policy) for kind in counts)
    return {
        "organization-name": reporter.organization,
        "date-range": {"start-datetime": f"{day}T00:00:00Z", "end-datetime": f"{day}T23:59:59Z"},
        "contact-info": reporter.contact,
        "report-id": report_id(day, domain, reporter),
        "policies": [
            _policy(
                domain, policy_type, policy, [(k, n) for k, n in counts.items() if _key(k) == (policy_type, policy)]
            )
            for policy_type, policy in policies
        ],
    }


def packed(report: Mapping[str, Any]) -> bytes:
    """Return a report as it travels: JSON, compressed; the same bytes each time."""
    return gzip.compress(json.dumps(report, ensure_ascii=False, indent=1).encode(), mtime=0)


def file_name(day: str, domain: str, reporter: Reporter) -> str:
    """Return the name of a report as an attachment. Source: RFC 8460 §5.1."""
    start = int(datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).timestamp())
    return f"{reporter.hostname}!{domain}!{start}!{start + 86_399}.json.gz"


def _key(kind: SessionKind) -> tuple[str, tuple[str, ...]]:
    return (kind.policy_type, kind.policy)


def _policy(
    domain: str, policy_type: str, policy: Sequence[str], counts: Sequence[tuple[SessionKind, int]]
) -> dict[str, Any]:
    described: dict[str, Any] = {"policy-type": policy_type, "policy-domain": domain}
    if policy:
        described["policy-string"] = list(policy)
    hosts = [line.removeprefix("mx: ") for line in policy if line.startswith("mx: ")]
    if hosts:
        described["mx-host"] = hosts
    failed = [(kind, number) for kind, number in counts if kind.result_type]
    entry: dict[str, Any] = {
        "policy": described,
        "summary": {
            "total-successful-session-count": sum(number for kind, number in counts if not kind.result_type),
            "total-failure-session-count": sum(number for _, number in failed),
        },
    }
    if failed:
        entry["failure-details"] = [_detail(kind, number) for kind, number in failed]
    return entry


def _detail(kind: SessionKind, number: int) -> dict[str, Any]:
    detail = {
        "result-type": kind.result_type,
        "sending-mta-ip": kind.sending_ip,
        "receiving-mx-hostname": kind.receiving_host,
        "receiving-ip": kind.receiving_ip,
        "failure-reason-code": kind.reason,
    }
    return {name: value for name, value in detail.items() if value} | {"failed-session-count": number}


def _result_type(policy: TlsPolicy, result: TlsResult) -> str:
    """Return the type of failure; empty: success."""
    if not result.problem and result.encrypted:
        # Records that nobody can use oblige to encryption alone, and are worth telling of.
        unusable = policy.report_type == "tlsa" and bool(policy.report_strings) and not policy.tlsa
        return "tlsa-invalid" if unusable else ""
    if result.encrypted and result.verified_by:
        return ""
    problem = result.problem
    return next((name for words, name in _BY_WORDS if words.lower() in problem.lower()), "validation-failure")
