"""Which name servers are asked, and what is remembered of their answers.

Either those of the settings, or those of the system's configuration file,
which is read again when it has changed: a worker runs for months, and the
machine's network may change under it.

Source: resolv.conf(5), RFC 2308, RFC 6840 §5.7.
"""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import dns.flags
import dns.name
import dns.nameserver
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from mailq.errors import DestinationSyntaxError, SettingError
from mailq.routing.destination import is_address, parse_destination

_DNS_PORT = 53
_PAYLOAD_BYTES = 1232
"""Answers up to this size are not fragmented on the way. Source: RFC 9715."""
_CACHE_LIMIT = 10_000
_CACHE_SECONDS = 86_400.0
_CONFIGURATION = Path("/etc/resolv.conf")

_log = logging.getLogger(__name__)


class NameServers:
    """The stub resolver to use now. Thread-safe.

    Args:
        listed: Address or address:port of each; empty: those of *configuration*.
        timeout_seconds: For one question; each server gets at most this.
        dnssec: Ask for validated answers, and for being told whether they are.
        configuration: The system's file.

    Raises:
        SettingError: A listed name server is no address, or the file is unusable.
    """

    def __init__(
        self,
        listed: Sequence[str],
        *,
        timeout_seconds: float,
        dnssec: bool = False,
        configuration: Path = _CONFIGURATION,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._dnssec = dnssec
        self._configuration = None if listed else configuration
        self._version = self._look()
        self._renewal = threading.Lock()
        self._stub = self._finished(_listed(listed) if listed else _first(configuration))

    def stub(self) -> dns.resolver.Resolver:
        """Return the stub resolver, with fresh name servers and nothing remembered if the file has changed.

        A file that has become unusable changes nothing but the log.
        """
        if self._configuration is not None and self._look() != self._version:
            with self._renewal:
                self._renew(self._configuration)
        return self._stub

    def _renew(self, configuration: Path) -> None:
        version = self._look()
        if version == self._version:
            return
        self._version = version
        try:
            self._stub = self._finished(_configured(configuration))
        except (SettingError, dns.resolver.NoResolverConfiguration) as error:
            _log.warning("keeping the name servers in use: %s", error)

    def _look(self) -> tuple[int, ...]:
        """Return what changes with the file; empty where there is none to read."""
        try:
            seen = self._configuration.stat() if self._configuration else None
        except OSError:
            seen = None
        return (seen.st_mtime_ns, seen.st_ino, seen.st_size) if seen else ()

    def _finished(self, stub: dns.resolver.Resolver) -> dns.resolver.Resolver:
        stub.timeout = min(stub.timeout, self._timeout_seconds)
        stub.cache = _BoundedCache(_CACHE_LIMIT)
        if self._dnssec:
            # The AD bit in a question asks for it in the answer; name servers of before RFC 6840 look at DO alone.
            stub.set_flags(dns.flags.RD | dns.flags.AD)
            stub.use_edns(0, dns.flags.DO, _PAYLOAD_BYTES)
        return stub


class _BoundedCache(dns.resolver.LRUCache):
    """Forgets the least used answers, and any answer after a day, whatever its time to live says."""

    def put(
        self,
        key: tuple[dns.name.Name, dns.rdatatype.RdataType, dns.rdataclass.RdataClass],
        value: dns.resolver.Answer,
    ) -> None:
        value.expiration = min(value.expiration, time.time() + _CACHE_SECONDS)
        super().put(key, value)


def _first(configuration: Path) -> dns.resolver.Resolver:
    try:
        return _configured(configuration)
    except dns.resolver.NoResolverConfiguration:
        # As the system's own resolver does without its file. Source: resolv.conf(5)
        return _listed(["127.0.0.1"])


def _configured(configuration: Path) -> dns.resolver.Resolver:
    try:
        return dns.resolver.Resolver(filename=str(configuration))
    except ValueError as error:
        raise SettingError(f"the system's list of name servers is unusable, set nameservers: {error}") from error


def _listed(texts: Sequence[str]) -> dns.resolver.Resolver:
    stub = dns.resolver.Resolver(configure=False)
    stub.nameservers = [_nameserver(text) for text in texts]
    return stub


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    try:
        parsed = parse_destination(f"[{text}]" if is_address(text) else text, default_service=str(_DNS_PORT))
    except DestinationSyntaxError:
        parsed = None
    if parsed is None or not is_address(parsed.host) or not parsed.service.isdigit():
        raise SettingError(f"nameservers: {text!r} is not address, address:port or [address]:port")
    return dns.nameserver.Do53Nameserver(parsed.host, parsed.port)
