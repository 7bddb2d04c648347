"""MTA-STS: what a domain says about the TLS of its mail servers. No input or output.

A domain announces by a TXT record that it has a policy, and which version of
it; the policy itself is a small text served by HTTPS. A policy names the mail
exchangers and says whether mail may go anywhere else (``testing``) or not
(``enforce``); ``none`` takes an earlier policy back.

Invariant: text that does not follow the grammar gives no policy, never half of one. What is unknown is skipped, as
the grammar asks, and of what is repeated the first counts.

Source: RFC 8461 §3.1, §3.2, §4.1, §5.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

from mailq.routing.destination import ascii_hostname

Mode = Literal["enforce", "testing", "none"]

TEXT_LIMIT_BYTES: Final = 65_536
"""A longer policy is not read. Source: RFC 8461 §3.3."""
LONGEST_AGE_SECONDS: Final = 31_557_600
"""A year; a policy that asks for more lives this long. Source: RFC 8461 §3.2."""

_SPACE = " \t"
_VERSION = "v=STSv1"
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_TXT_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)")
_POLICY_VALUE = r"[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?"
_POLICY_FIELD = re.compile(rf"([A-Za-z0-9][A-Za-z0-9_.-]{{0,31}}):[ \t]*({_POLICY_VALUE})")
_AGE = re.compile(r"[0-9]{1,10}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATTERN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_NAME_LIMIT = 253


class StsSyntaxError(ValueError):
    """A policy does not follow the grammar; ``str()`` says where."""


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A domain's policy.

    Attributes:
        domain: Whose, an A-label in lower case.
        id: Of the version, from the TXT record.
        mode: ``enforce``, ``testing`` or ``none``.
        mx: Names or ``*.parent`` patterns in lower case; at least one unless the mode is ``none``.
        max_age_seconds: How long it holds after it was fetched, 0 to a year.
    """

    domain: str
    id: str
    mode: Mode
    mx: tuple[str, ...]
    max_age_seconds: int

    def allows(self, host: str) -> bool:
        """Whether *host* is one of the domain's mail exchangers. Source: RFC 8461 §4.1, smtp-delivery P-45."""
        return any(_matches(pattern, host) for pattern in self.mx)

    @property
    def lines(self) -> tuple[str, ...]:
        """The policy in its own words, for TLS reports. Source: RFC 8460 §4.4."""
        names = (f"mx: {pattern}" for pattern in self.mx)
        return ("version: STSv1", f"mode: {self.mode}", *names, f"max_age: {self.max_age_seconds}")


class StsPolicies(Protocol):
    """Knows the policies of domains."""

    def policy_for(self, domain: str) -> StsPolicy | None:
        """Return the policy to follow now, ``enforce`` or ``testing``; None where there is none. Never raises."""


def policy_id(records: Iterable[str]) -> str | None:
    """Return the version that the TXT records of ``_mta-sts.DOMAIN`` announce; None where they announce no policy.

    Args:
        records: Each with its strings joined.

    Source: RFC 8461 §3.1.
    """
    announcements = [record for record in records if re.match(rf"{_VERSION}[ \t]*;", record)]
    if len(announcements) != 1:
        return None
    found: dict[str, str] = {}
    fields = [field.strip(_SPACE) for field in announcements[0].split(";")[1:]]
    if fields and not fields[-1]:
        fields.pop()
    for field in fields:
        match = _TXT_FIELD.fullmatch(field)
        if match is None:
            return None
        found.setdefault(match[1], match[2])
    version = found.get("id", "")
    return version if _ID.fullmatch(version) else None


def parse_policy(text: bytes, *, domain: str, version: str) -> StsPolicy:
    """Return the policy that *text* is.

    Args:
        text: The body of the HTTPS answer.
        domain: Whose policy it is.
        version: From the TXT record that led to it.

    Raises:
        StsSyntaxError: It is none.

    Source: RFC 8461 §3.2.
    """
    fields = _fields(text)
    first = dict(reversed(fields))
    if first.get("version") != "STSv1":
        raise StsSyntaxError(f"the version is {first.get('version', 'missing')}, not STSv1")
    if first.get("mode") not in {"enforce", "testing", "none"}:
        raise StsSyntaxError(f"the mode is {first.get('mode', 'missing')}, not enforce, testing or none")
    age = first.get("max_age", "")
    if not _AGE.fullmatch(age):
        raise StsSyntaxError(f"max_age is {age or 'missing'}, not a number of seconds")
    mode = cast("Mode", first["mode"])
    patterns = tuple(_pattern(value) for name, value in fields if name == "mx")
    if not patterns and mode != "none":
        raise StsSyntaxError(f"mode {mode} names no mx")
    return StsPolicy(
        domain=domain,
        id=version,
        mode=mode,
        mx=tuple(dict.fromkeys(patterns)),
        max_age_seconds=min(int(age), LONGEST_AGE_SECONDS),
    )


def _fields(text: bytes) -> list[tuple[str, str]]:
    if len(text) > TEXT_LIMIT_BYTES:
        raise StsSyntaxError(f"longer than {TEXT_LIMIT_BYTES} bytes")
    try:
        lines = text.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise StsSyntaxError("not UTF-8") from None
    if lines and not lines[-1]:
        lines.pop()
    fields = []
    for number, line in enumerate(lines, 1):
        match = _POLICY_FIELD.fullmatch(line.rstrip(_SPACE))
        if match is None:
            raise StsSyntaxError(f"line {number} is no field")
        fields.append((match[1], match[2]))
    return fields


def _pattern(text: str) -> str:
    pattern = text.lower()
    if not _PATTERN.fullmatch(pattern) or len(pattern) > _NAME_LIMIT:
        raise StsSyntaxError(f"mx {text[:80]} is no host name")
    return pattern


def _matches(pattern: str, host: str) -> bool:
    try:
        name = ascii_hostname(host.removesuffix(".")).lower()
    except ValueError:
        return False
    if not pattern.startswith("*."):
        return name == pattern
    label, dot, parent = name.partition(".")
    return bool(label and dot) and parent == pattern[2:]
