"""Ask the Domain Name System: the only module that does.

Turns what dnspython or the system's name service says into answers (mail
exchangers, servers of a service, addresses) or one exception with a class and
an operator's text. Names are asked for as they are, without a search list;
aliases are followed; answers, negative ones too, are remembered for their
time to live.

Whether DNSSEC vouches for an answer is what the name servers say of it (the AD
bit), and is believed only where ``dns_support_level`` says that they, and the
way to them, can be trusted with it.

Invariant: no question takes much longer than ``dns_timeout``, and whatever a
name server or a filter does, nothing but
:class:`~mailq.errors.LookupFailedError` comes out. Thread-safe.

Source: RFC 1034 §3.6.2, RFC 2308, RFC 2782, RFC 4035 §3.2.3, RFC 6698 §3, RFC 7505 §4.1, smtp-delivery A-01 to A-11,
A-20 to A-27, A-60, P-41 to P-44c.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.resolver

from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.answer import Answer
from mailq.routing.destination import ascii_hostname, canonical_address, is_address, is_hostname
from mailq.routing.name_servers import NameServers
from mailq.routing.native import native_addresses
from mailq.routing.remembered import Remembered
from mailq.routing.reply_filter import ReplyFilter, usable_records
from mailq.routing.srv import ServiceRecord
from mailq.security import TlsaRecord
from mailq.settings import Settings

_RECORD_LIST_LIMIT = 100
_ALIAS_LIMIT = 10

_RECORD_TYPES = (("ipv4", "A"), ("ipv6", "AAAA"))
_RECOVERABLE = frozenset(
    {dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP}
)
"""Response codes after which asking again later may help. Source: smtp-delivery A-03."""

_RANK = MappingProxyType(
    {
        LookupKind.NOT_FOUND: 0,
        LookupKind.NULL_MX: 1,
        LookupKind.FAIL: 2,
        LookupKind.INVALID: 3,
        LookupKind.RETRY: 4,
        LookupKind.POLICY: 5,
    }
)
"""Which of two failures speaks for both. Source: smtp-delivery A-11."""


RecordT = TypeVar("RecordT")


class DnsResolver:
    """Looks up mail exchangers, servers of a service, and addresses.

    Args:
        settings: ``nameservers``, ``dns_timeout``, ``dns_support_level``, ``inet_protocols``, ``host_lookup`` and
            ``disable_dns_lookups`` are used.
        reply_filter: Strikes records from answers; None uses all.

    Raises:
        SettingError: A name server is no IP address with or without a port.
    """

    def __init__(self, settings: Settings, *, reply_filter: ReplyFilter | None = None) -> None:
        self._families = tuple((name, rdtype) for name, rdtype in _RECORD_TYPES if name in settings.address_families)
        # Source: smtp-delivery A-24
        self._ways = ("native",) if settings.disable_dns_lookups else settings.host_lookup
        self._timeout_seconds = settings.dns_timeout.total_seconds()
        self._dnssec = settings.dns_support_level == "dnssec"
        self._name_servers = NameServers(
            settings.nameservers, timeout_seconds=self._timeout_seconds, dnssec=self._dnssec
        )
        self._reply_filter = reply_filter
        self._remembered = Remembered(time.time)

    def mail_exchangers(self, domain: str) -> Answer[tuple[int, str]]:
        """Return ``(preference, host)`` pairs, at least one, in the answer's order.

        Raises:
            LookupFailedError: With kind NULL_MX when any target is the root name.

        Source: smtp-delivery A-01 to A-10.
        """
        return self._once("MX", domain, self._mail_exchangers)

    def _mail_exchangers(self, domain: str) -> Answer[tuple[int, str]]:
        found = self._ask(domain, "MX")
        if any(record.exchange == dns.name.root for record in found):
            raise LookupFailedError(LookupKind.NULL_MX, f"Domain {domain} does not accept mail (nullMX)")
        hosts = [(r.preference, _host(r.exchange)) for r in self._usable(domain, "MX", found.records)]
        exchangers = [(preference, host) for preference, host in hosts if host]
        if not exchangers:
            raise _malformed(domain, "MX")
        return replace(found, records=tuple(exchangers[:_RECORD_LIST_LIMIT]))

    def services(self, name: str) -> Answer[ServiceRecord]:
        """Return the SRV records of *name*, which is ``_service._tcp.domain``, at least one, in the answer's order.

        Raises:
            LookupFailedError: With kind NULL_SRV when any target is the root name.

        Source: RFC 2782, smtp-delivery A-01 to A-10.
        """
        return self._once("SRV", name, self._services)

    def _services(self, name: str) -> Answer[ServiceRecord]:
        found = self._ask(name, "SRV")
        if any(record.target == dns.name.root for record in found):
            raise LookupFailedError(LookupKind.NULL_SRV, f"Domain {name} does not support SRV requests")
        usable = self._usable(name, "SRV", found.records)
        records = [ServiceRecord(r.priority, r.weight, r.port, _host(r.target)) for r in usable]
        services = [record for record in records if record.target and record.port]
        if not services:
            raise _malformed(name, "SRV")
        return replace(found, records=tuple(services[:_RECORD_LIST_LIMIT]))

    def texts(self, name: str) -> Sequence[str]:
        """Return the TXT records of *name*, at least one, each with its strings joined; bytes above 127 as Latin-1.

        Raises:
            LookupFailedError: There is none, or nobody can say. Source: RFC 8461 §3.1
        """
        records = self._usable(name, "TXT", self._ask(name, "TXT").records)
        return [b"".join(record.strings).decode("latin-1") for record in records[:_RECORD_LIST_LIMIT]]

    def tlsa(self, host: str, port: int) -> Answer[TlsaRecord]:
        """Return the TLSA records of a TCP port, at least one, whether validated or not.

        Raises:
            LookupFailedError: With kind NOT_FOUND when there is none, validated or not.

        Source: RFC 6698 §3, smtp-delivery P-44c.
        """
        found = self._ask(f"_{port}._tcp.{_query_name(host)}", "TLSA")
        records = (TlsaRecord(r.usage, r.selector, r.mtype, bytes(r.cert)) for r in found)
        return replace(found, records=tuple(records)[:_RECORD_LIST_LIMIT])

    def alias(self, host: str) -> Answer[str]:
        """Return the name that *host* is an alias of, without following it any further.

        Raises:
            LookupFailedError: With kind NOT_FOUND when it is no alias.
        """
        found = self._ask(host, "CNAME")
        return replace(found, records=tuple(record.target.to_text(omit_final_dot=True) for record in found))

    def addresses(self, host: str) -> Answer[str]:
        """Return the host's IP addresses as text, at least one: IPv4 before IPv6, enabled families only.

        Raises:
            LookupFailedError: No usable address.

        Source: smtp-delivery A-11, A-20 to A-22.
        """
        literal = canonical_address(host)
        if literal is not None and self._enabled([literal]):
            return Answer((literal,), name=literal)
        try:
            return self._system_lookup(host) if "dns" not in self._ways else self._once("A", host, self._dns_lookup)
        except LookupFailedError as error:
            if error.native or error.kind is not LookupKind.NOT_FOUND or "native" not in self._ways:
                raise
            return self._system_lookup(host)

    def _once(self, rdtype: str, name: str, ask: Callable[[str], Answer[RecordT]]) -> Answer[RecordT]:
        """Ask, but for what is remembered; the operator's filter looks at every answer, each time."""
        if self._reply_filter is not None:
            return ask(name)
        return self._remembered.get((rdtype, name), self._name_servers.stub(), lambda: ask(name))

    def _dns_lookup(self, host: str) -> Answer[str]:
        found: list[str] = []
        answers: list[Answer[Any]] = []
        kind, text = LookupKind.NOT_FOUND, ""
        ends: list[float] = []
        for _, rdtype in self._families:
            try:
                answer = self._ask(host, rdtype)
                ends.append(answer.ends_at)
                found += (record.address for record in self._usable(host, rdtype, answer.records))
                answers.append(answer)
            except LookupFailedError as error:
                # That there is none is an answer, too; what else went wrong may be over the next moment.
                ends.append(error.ends_at if isinstance(error, _NoDataError) else 0.0)
                # Not the error: it knows the way that it came, and so itself and everybody who waits for this answer.
                if _RANK[error.kind] >= _RANK[kind] or not text:
                    kind, text = error.kind, error.text
        if not found:
            raise LookupFailedError(kind, text or f"{host}: host not found")
        validated = all(answer.validated for answer in answers)
        name = answers[0].name
        return Answer(tuple(found[:_RECORD_LIST_LIMIT]), validated=validated, name=name, ends_at=min(ends))

    def _usable(self, host: str, rdtype: str, records: Sequence[Any]) -> Sequence[Any]:
        """Source: smtp-delivery A-06."""
        return usable_records(records, name=_query_name(host), rdtype=rdtype, reply_filter=self._reply_filter)

    def _ask(self, host: str, rdtype: str) -> Answer[Any]:
        """Put one question, following aliases that the name servers did not follow."""
        name = _query_name(host)
        try:
            query = dns.name.from_text(name)
        except dns.exception.DNSException:
            raise _invalid(host) from None
        stub = self._name_servers.stub()
        validated, ends_at = self._dnssec, float("inf")
        deadline = time.monotonic() + self._timeout_seconds
        for _ in range(_ALIAS_LIMIT + 1):
            try:
                answer = stub.resolve(
                    query,
                    rdtype,
                    search=False,
                    lifetime=max(deadline - time.monotonic(), 0.0),
                    raise_on_no_answer=False,
                )
            except dns.resolver.NXDOMAIN:
                raise _not_found(name, rdtype, "Host not found") from None
            except (dns.exception.DNSException, OSError) as error:
                raise _failed(name, rdtype, error) from error
            validated = validated and bool(answer.response.flags & dns.flags.AD)
            ends_at = min(ends_at, answer.expiration)
            if answer.rrset is not None:
                end = answer.canonical_name.to_text(omit_final_dot=True)
                return Answer(tuple(answer.rrset), validated=validated, name=end, ends_at=ends_at)
            if answer.canonical_name == query:
                raise _NoDataError(_text(name, rdtype, "Host found but no data record of requested type"), ends_at)
            query = answer.canonical_name
        raise LookupFailedError(LookupKind.NOT_FOUND, f"Name server loop for {name}")

    def _system_lookup(self, host: str) -> Answer[str]:
        """Source: smtp-delivery A-22."""
        name = _query_name(host) if canonical_address(host) is None else host
        found = self._enabled(native_addresses(name, shown_as=host))
        if not found:
            raise LookupFailedError(LookupKind.NOT_FOUND, f"{host}: host not found", native=True)
        return Answer(tuple(found), name=name)

    def _enabled(self, addresses: Iterable[str]) -> list[str]:
        """Return those of an enabled family, each once, IPv4 first."""
        families = {name for name, _ in self._families}
        known = [text for text in map(canonical_address, addresses) if text is not None]
        usable = [text for text in dict.fromkeys(known) if _family(text) in families]
        return sorted(usable, key=_family)


class _NoDataError(LookupFailedError):
    """A name has no such record, and that holds until *ends_at*. Source: RFC 2308 §2.2."""

    def __init__(self, text: str, ends_at: float) -> None:
        super().__init__(LookupKind.NOT_FOUND, text)
        self.ends_at = ends_at


def _host(name: dns.name.Name) -> str:
    """Return a record's target as text; empty where no host can have that name. Source: smtp-delivery A-05."""
    host = name.to_text(omit_final_dot=True)
    return host if is_hostname(host) or is_address(host) else ""


def _query_name(host: str) -> str:
    """Return the ASCII form to ask for. Source: smtp-delivery A-02, A-26."""
    try:
        return ascii_hostname(host)
    except ValueError:
        raise _invalid(host) from None


def _invalid(host: str) -> LookupFailedError:
    return LookupFailedError(LookupKind.NOT_FOUND, f"Name service error for {host}: invalid host or domain name")


def _malformed(name: str, rdtype: str) -> LookupFailedError:
    text = f"Name service error for name={name} type={rdtype}: Malformed or unexpected name server reply"
    return LookupFailedError(LookupKind.INVALID, text)


def _not_found(name: str, rdtype: str, detail: str) -> LookupFailedError:
    return LookupFailedError(LookupKind.NOT_FOUND, _text(name, rdtype, detail))


def _failed(name: str, rdtype: str, error: Exception) -> LookupFailedError:
    """Classify what is neither an answer nor a clear no. Source: smtp-delivery A-02 to A-05."""
    problems = list(_problems(error))
    if any(isinstance(problem, dns.message.ChainTooLong) for problem in problems):
        return LookupFailedError(LookupKind.NOT_FOUND, f"Name server loop for {name}")
    refusals = [problem for problem in problems if isinstance(problem, dns.rcode.Rcode)]
    if problems and len(refusals) == len(problems) and not _RECOVERABLE.intersection(refusals):
        return LookupFailedError(LookupKind.FAIL, _text(name, rdtype, "Non-recoverable error"))
    return LookupFailedError(LookupKind.RETRY, _text(name, rdtype, "Host not found, try again"))


def _problems(error: Exception) -> Iterator[Exception | dns.rcode.Rcode]:
    """Yield what each name server did wrong: an unwelcome response code, or a trouble of its own."""
    if isinstance(error, dns.resolver.YXDOMAIN):
        yield dns.rcode.YXDOMAIN
    elif isinstance(error, dns.resolver.NoNameservers):
        for *_, problem, response in error.kwargs["errors"]:
            refused = isinstance(problem, str) and response is not None
            yield response.rcode() if refused else problem


def _text(name: str, rdtype: str, detail: str) -> str:
    return f"Host or domain name not found. Name service error for name={name} type={rdtype}: {detail}"


def _family(address: str) -> str:
    return "ipv6" if ":" in address else "ipv4"
