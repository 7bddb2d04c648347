"""A check of TLS reports, written from the text of RFC 8460 §4.2 to §4.4 and from nothing of ours."""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

_RESULT_TYPES = {
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
}


def problems_in(report: Any) -> list[str]:
    """Return what is wrong with a report; nothing: it is one."""
    return list(_problems(report))


def _problems(report: Any) -> Iterator[str]:
    text = _is_text
    fields = {"organization-name": text, "date-range": _is_range, "contact-info": text, "report-id": text}
    yield from _fields("report", report, {**fields, "policies": _is_list}, {})
    for entry in report.get("policies", []):
        yield from _fields("entry", entry, {"policy": _is_object, "summary": _is_object}, {"failure-details": _is_list})
        yield from _policy_problems(entry["policy"])
        yield from _sum_problems(entry)
        for detail in entry.get("failure-details", []):
            yield from _detail_problems(detail)


def _policy_problems(policy: Mapping[str, Any]) -> Iterator[str]:
    required = {"policy-type": lambda value: value in {"tlsa", "sts", "no-policy-found"}, "policy-domain": _is_text}
    yield from _fields("policy", policy, required, {"policy-string": _is_texts, "mx-host": _is_texts})


def _sum_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    counts = {"total-successful-session-count": _is_count, "total-failure-session-count": _is_count}
    yield from _fields("summary", entry["summary"], counts, {})
    failed = sum(detail["failed-session-count"] for detail in entry.get("failure-details", []))
    if failed != entry["summary"]["total-failure-session-count"]:
        yield "the failures do not add up"


def _detail_problems(detail: Mapping[str, Any]) -> Iterator[str]:
    required = {"result-type": _RESULT_TYPES.__contains__, "failed-session-count": _is_count}
    optional = {
        "sending-mta-ip": _is_ip,
        "receiving-ip": _is_ip,
        "receiving-mx-hostname": _is_text,
        "receiving-mx-helo": _is_text,
        "additional-information": _is_text,
        "failure-reason-code": _is_text,
    }
    yield from _fields("detail", detail, required, optional)


def _fields(
    name: str,
    value: Any,
    required: Mapping[str, Callable[[Any], bool]],
    optional: Mapping[str, Callable[[Any], bool]],
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{name} is no object"
        return
    yield from (f"{name} lacks {field}" for field in required if field not in value)
    known = {**required, **optional}
    for field, content in value.items():
        if field not in known:
            yield f"{name} has an unknown {field}"
        elif not known[field](content):
            yield f"{field} of {name} is {content!r}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_ip(value: Any) -> bool:
    try:
        return bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def _is_range(value: Any) -> bool:
    if set(value) != {"start-datetime", "end-datetime"}:
        return False
    start, end = (datetime.fromisoformat(value[name]) for name in ("start-datetime", "end-datetime"))
    return start < end and value["start-datetime"].endswith("Z") and value["end-datetime"].endswith("Z")
