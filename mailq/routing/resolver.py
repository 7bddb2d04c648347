"""Ask the Domain Name System: the only module that does.

Turns what dnspython or the system's name service says into two answers (mail
exchangers, addresses) or one exception with a class and an operator's text.
Names are asked for as they are, without a search list; aliases are followed;
answers, negative ones too, are remembered for their time to live.

Invariant: no question takes much longer than ``dns_timeout``, and whatever a
name server does, nothing but :class:`~mailq.errors.LookupFailedError` comes
out. Thread-safe.

Source: RFC 1034 §3.6.2, RFC 2308, RFC 7505 §4.1, smtp-delivery A-01 to A-11, A-20 to A-27.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType

import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.resolver
import dns.rrset

from mailq.errors import DestinationSyntaxError, LookupFailedError, LookupKind, SettingError
from mailq.routing.destination import (
    ascii_hostname,
    canonical_address,
    is_address,
    is_hostname,
    parse_destination,
)
from mailq.settings import Settings

_DNS_PORT = 53
_CACHE_LIMIT = 10_000
_CACHE_SECONDS = 86_400.0
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

_NATIVE_KIND = MappingProxyType(
    {
        socket.EAI_AGAIN: LookupKind.RETRY,
        socket.EAI_MEMORY: LookupKind.SYSTEM,
        socket.EAI_SYSTEM: LookupKind.SYSTEM,
        socket.EAI_NONAME: LookupKind.NOT_FOUND,
        socket.EAI_NODATA: LookupKind.NOT_FOUND,
    }
)
"""Source: smtp-delivery A-22."""


class DnsResolver:
    """Looks up mail exchangers and addresses.

    Args:
        settings: ``nameservers``, ``dns_timeout``, ``inet_protocols`` and ``disable_dns_lookups`` are used.

    Raises:
        SettingError: A name server is no IP address with or without a port.
    """

    def __init__(self, settings: Settings) -> None:
        self._families = tuple((name, rdtype) for name, rdtype in _RECORD_TYPES if name in settings.inet_protocols)
        self._native = settings.disable_dns_lookups
        self._timeout_seconds = settings.dns_timeout.total_seconds()
        self._dns = _stub(settings.nameservers)
        self._dns.timeout = min(self._dns.timeout, self._timeout_seconds)
        self._dns.cache = _BoundedCache(_CACHE_LIMIT)

    def mail_exchangers(self, domain: str) -> Sequence[tuple[int, str]]:
        """Return ``(preference, host)`` pairs, at least one, in the answer's order.

        Raises:
            LookupFailedError: With kind NULL_MX when any target is the root name.

        Source: smtp-delivery A-01 to A-10.
        """
        exchangers: list[tuple[int, str]] = []
        for record in self._ask(domain, "MX"):
            if record.exchange == dns.name.root:
                raise LookupFailedError(LookupKind.NULL_MX, f"Domain {domain} does not accept mail (nullMX)")
            host = record.exchange.to_text(omit_final_dot=True)
            if is_hostname(host) or is_address(host):
                exchangers.append((record.preference, host))
        if not exchangers:
            text = f"Name service error for name={domain} type=MX: Malformed or unexpected name server reply"
            raise LookupFailedError(LookupKind.INVALID, text)
        return exchangers[:_RECORD_LIST_LIMIT]

    def addresses(self, host: str) -> Sequence[str]:
        """Return the host's IP addresses as text, at least one: IPv4 before IPv6, enabled families only.

        Raises:
            LookupFailedError: No usable address.

        Source: smtp-delivery A-11, A-20 to A-22.
        """
        literal = canonical_address(host)
        if literal is not None and self._enabled([literal]):
            return [literal]
        if self._native:
            return self._system_lookup(host)
        found: list[str] = []
        failure: LookupFailedError | None = None
        for _, rdtype in self._families:
            try:
                found += (record.address for record in self._ask(host, rdtype))
            except LookupFailedError as error:
                if failure is None or _RANK[error.kind] >= _RANK[failure.kind]:
                    failure = error
        if not found:
            raise failure or LookupFailedError(LookupKind.NOT_FOUND, f"{host}: host not found")
        return found[:_RECORD_LIST_LIMIT]

    def _ask(self, host: str, rdtype: str) -> dns.rrset.RRset:
        """Put one question, following aliases that the name servers did not follow."""
        name = _query_name(host)
        try:
            query = dns.name.from_text(name)
        except dns.exception.DNSException:
            raise _invalid(host) from None
        deadline = time.monotonic() + self._timeout_seconds
        for _ in range(_ALIAS_LIMIT + 1):
            try:
                answer = self._dns.resolve(
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
            if answer.rrset is not None:
                return answer.rrset
            if answer.canonical_name == query:
                raise _not_found(name, rdtype, "Host found but no data record of requested type")
            query = answer.canonical_name
        raise LookupFailedError(LookupKind.NOT_FOUND, f"Name server loop for {name}")

    def _system_lookup(self, host: str) -> list[str]:
        """Source: smtp-delivery A-22."""
        name = _query_name(host) if canonical_address(host) is None else host
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            kind = _NATIVE_KIND.get(error.errno or 0, LookupKind.FAIL)
            raise LookupFailedError(kind, f"unable to look up host {host}: {error.strerror}") from error
        found = self._enabled(str(answer[4][0]) for answer in answers)
        if not found:
            raise LookupFailedError(LookupKind.NOT_FOUND, f"{host}: host not found")
        return found

    def _enabled(self, addresses: Iterable[str]) -> list[str]:
        """Return those of an enabled family, each once, IPv4 first."""
        families = {name for name, _ in self._families}
        known = [text for text in map(canonical_address, addresses) if text is not None]
        usable = [text for text in dict.fromkeys(known) if _family(text) in families]
        return sorted(usable, key=_family)


class _BoundedCache(dns.resolver.LRUCache):
    """Forgets the least used answers, and any answer after a day, whatever its time to live says."""

    def put(
        self,
        key: tuple[dns.name.Name, dns.rdatatype.RdataType, dns.rdataclass.RdataClass],
        value: dns.resolver.Answer,
    ) -> None:
        value.expiration = min(value.expiration, time.time() + _CACHE_SECONDS)
        super().put(key, value)


def _stub(nameservers: Sequence[str]) -> dns.resolver.Resolver:
    if nameservers:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [_nameserver(text) for text in nameservers]
        return resolver
    try:
        return dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        # As the system's own resolver does without its file. Source: resolv.conf(5)
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        return resolver
    except ValueError as error:
        raise SettingError(f"the system's list of name servers is unusable, set nameservers: {error}") from error


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    try:
        parsed = parse_destination(f"[{text}]" if is_address(text) else text, default_service=str(_DNS_PORT))
    except DestinationSyntaxError:
        parsed = None
    if parsed is None or not is_address(parsed.host) or not parsed.service.isdigit():
        raise SettingError(f"nameservers: {text!r} is not address, address:port or [address]:port")
    return dns.nameserver.Do53Nameserver(parsed.host, parsed.port)


def _query_name(host: str) -> str:
    """Return the ASCII form to ask for. Source: smtp-delivery A-02, A-26."""
    try:
        return ascii_hostname(host)
    except ValueError:
        raise _invalid(host) from None


def _invalid(host: str) -> LookupFailedError:
    return LookupFailedError(LookupKind.NOT_FOUND, f"Name service error for {host}: invalid host or domain name")


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
