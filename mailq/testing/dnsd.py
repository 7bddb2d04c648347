"""A small DNS server for tests and demonstrations.

It serves one zone from memory, on UDP and TCP of the same port, as a
recursive name server would: aliases are followed, unknown names do not exist,
and a name without records of the wanted type says so. Any name or type can be
made to fail. One thread serves everything; what it was asked is remembered.

The zone maps a name to its records by type, each record as in a zone file::

    {
        "example.test": {"MX": ["10 mx1.example.test", "20 mx2.example.test"]},
        "mx1.example.test": {"A": ["127.0.0.2"], "AAAA": ["::1"]},
        "mx2.example.test": {"A": "SERVFAIL", "AAAA": []},
        "_submission._tcp.example.test": {"SRV": ["0 0 587 mx1.example.test"]},
        "www.example.test": {"CNAME": ["mx1.example.test"]},
        "gone.example.test": "NXDOMAIN",
        "silent.example.test": "TIMEOUT",
    }

A word in place of records is what happens instead: the name of any response
code, ``TIMEOUT`` for no answer, or ``GARBAGE`` for an answer that does not
parse. The key ``_tc`` makes every UDP answer about the name truncated; the key
``_cut`` answers with the name's alias alone, as a server that does not follow
it; the key ``_ad`` says that DNSSEC vouches for the name, to those who ask for
that. The values of all three are ignored.

Source: RFC 1035 §4.
"""

import selectors
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from mailq.testing.dns_zone import GARBAGE, SILENCE, Name, Records, fill, parse_records, soa, vouched_for, zone_key

_UDP_LIMIT_BYTES = 512
_STALLED_SECONDS = 5.0
_BIND_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Query:
    """One question that arrived.

    Attributes:
        name: In lower case, without final dot.
        type: Such as ``MX``.
        tcp: It came over TCP.
    """

    name: str
    type: str
    tcp: bool


class DnsServer:
    """Serves *zone* while it is entered as a context manager; see the module's text for the zone.

    Args:
        zone: Records by name.
        fallback: Records of every name that is not in the zone; None: such a name does not exist.
        address: Own IP address.
        port: Own port; 0 chooses a free one.
        authentic: DNSSEC vouches for every name, and for there being no others.
        ttl_seconds: Of all answers, negative ones too. 0 keeps resolvers from caching, so that :meth:`set` works at
            once.

    Raises:
        ValueError: A record of the zone or of *fallback* does not parse.
    """

    def __init__(
        self,
        zone: Mapping[str, Records],
        *,
        fallback: Records | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        authentic: bool = False,
        ttl_seconds: int = 0,
    ) -> None:
        self._lock = threading.Lock()
        self._ttl_seconds = ttl_seconds
        self._fallback = fallback
        self._authentic = authentic
        if fallback is not None:
            parse_records("fallback", fallback, ttl_seconds)
        self._zone: dict[str, Name] = {}
        self._queries: list[Query] = []
        for name, records in zone.items():
            self.set(name, records)
        self.address = address
        self.port = port
        self._selector: selectors.BaseSelector | None = None
        self._wake: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def nameserver(self) -> str:
        """The value for the setting ``nameservers``: ``address:port``, or ``[address]:port`` for IPv6."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def queries(self) -> tuple[Query, ...]:
        """All questions so far, oldest first."""
        with self._lock:
            return tuple(self._queries)

    def set(self, name: str, records: Records | None) -> None:
        """Replace what is known of *name*; None forgets it.

        Raises:
            ValueError: A record does not parse.
        """
        key = zone_key(name)
        parsed = None if records is None else parse_records(name, records, self._ttl_seconds)
        with self._lock:
            if parsed is None:
                self._zone.pop(key, None)
            else:
                self._zone[key] = parsed

    def __enter__(self) -> Self:
        udp, tcp = _bind(self.address, self.port)
        self.port = udp.getsockname()[1]
        self._wake, stop = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for opened in (udp, tcp, stop):
            opened.setblocking(False)
            self._selector.register(opened, selectors.EVENT_READ)
        self._thread = threading.Thread(
            target=self._serve, args=(self._selector, udp, tcp, stop), name=f"dnsd-{self.port}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wake is not None and self._thread is not None:
            with suppress(OSError):
                self._wake.send(b"x")
            self._thread.join()
            self._wake.close()

    def _serve(
        self, selector: selectors.BaseSelector, udp: socket.socket, tcp: socket.socket, stop: socket.socket
    ) -> None:
        streams: dict[socket.socket, bytearray] = {}
        try:
            while True:
                for ready, _ in selector.select():
                    if ready.fileobj is stop:
                        return
                    if ready.fileobj is udp:
                        self._serve_datagram(udp)
                    elif ready.fileobj is tcp:
                        _accept(selector, tcp, streams)
                    elif isinstance(ready.fileobj, socket.socket) and not self._serve_stream(
                        ready.fileobj, streams[ready.fileobj]
                    ):
                        selector.unregister(ready.fileobj)
                        del streams[ready.fileobj]
                        ready.fileobj.close()
        finally:
            selector.close()
            for opened in (udp, tcp, stop, *streams):
                opened.close()

    def _serve_datagram(self, udp: socket.socket) -> None:
        # A client that left already shows up as an error of the next read: not our trouble.
        with suppress(OSError):
            wire, client = udp.recvfrom(65535)
            answer = self._answer(wire, tcp=False)
            if answer is not None:
                udp.sendto(answer, client)

    def _serve_stream(self, stream: socket.socket, received: bytearray) -> bool:
        """Answer what is complete; False when the stream is at its end."""
        try:
            data = stream.recv(65535)
            received += data
            while len(received) >= 2 and len(received) >= 2 + int.from_bytes(received[:2]):  # noqa: PLR2004 - RFC 1035 §4.2.2: a two-byte length
                size = 2 + int.from_bytes(received[:2])
                answer = self._answer(bytes(received[2:size]), tcp=True)
                del received[:size]
                if answer is not None:
                    stream.sendall(struct.pack("!H", len(answer)) + answer)
        except OSError:
            return False
        return bool(data)

    def _answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        try:
            request = dns.message.from_wire(wire)
            response = dns.message.make_response(request, recursion_available=True)
        except dns.exception.DNSException:
            return None
        if len(request.question) != 1:
            return None
        question = request.question[0]
        query = Query(zone_key(question.name.to_text()), dns.rdatatype.to_text(question.rdtype), tcp)
        with self._lock:
            self._queries.append(query)
            zone = dict(self._zone)
        if self._fallback is not None and query.name not in zone:
            zone[query.name] = parse_records(query.name, self._fallback, self._ttl_seconds)
        word = fill(response, zone, query.name, query.type)
        if word == SILENCE:
            return None
        if word == GARBAGE:
            # The header and the question are ours, so that the client cannot take it for somebody else's.
            return response.to_wire()[:6] + b"\x00\x05" + response.to_wire()[8:] + b"\xff" * 7
        if word is not None:
            response.set_rcode(dns.rcode.from_text(word))
        wants_to_know = request.flags & dns.flags.AD or request.ednsflags & dns.flags.DO
        if wants_to_know and (self._authentic or vouched_for(zone, response, query.name)):
            response.flags |= dns.flags.AD
        if not response.answer:
            response.authority.append(soa(self._ttl_seconds))
        known = zone.get(query.name)
        return _to_wire(response, tcp=tcp, truncate=known is not None and known.truncated)


def _to_wire(response: dns.message.Message, *, tcp: bool, truncate: bool) -> bytes:
    if tcp:
        return response.to_wire(max_size=65535, want_shuffle=False)
    if not truncate:
        with suppress(dns.exception.TooBig):
            return response.to_wire(max_size=max(response.request_payload, _UDP_LIMIT_BYTES), want_shuffle=False)
    response.answer.clear()
    response.authority.clear()
    response.flags |= dns.flags.TC
    return response.to_wire()


def _accept(selector: selectors.BaseSelector, tcp: socket.socket, streams: dict[socket.socket, bytearray]) -> None:
    with suppress(OSError):
        stream, _ = tcp.accept()
        # A client that does not read must not stop the others for ever.
        stream.settimeout(_STALLED_SECONDS)
        streams[stream] = bytearray()
        selector.register(stream, selectors.EVENT_READ)


def _bind(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Bind UDP and TCP to the same port, which for port 0 may take more than one try."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for attempt in range(_BIND_ATTEMPTS):
        tcp = socket.socket(family, socket.SOCK_STREAM)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((address, port))
            udp.bind((address, tcp.getsockname()[1]))
            tcp.listen()
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == _BIND_ATTEMPTS - 1:
                raise
        else:
            return udp, tcp
    raise AssertionError("the loop returns or raises")
