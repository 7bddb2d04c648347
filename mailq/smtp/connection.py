"""Connections to servers: the only sockets of mailq.

TCP over IPv4 and IPv6, and UNIX-domain stream sockets. Every wait has a
timeout, and every trouble of the peer or the network is one of four errors
whose text is the operating system's.

Source: smtp-delivery C-81 to C-86, C-94.
"""

import errno
import ipaddress
import logging
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

from mailq.errors import (
    ConnectFailedError,
    ConnectionLostError,
    ConnectionTimeoutError,
    SettingError,
    SocketPathTooLongError,
    SourceAddressError,
)
from mailq.security import TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.smtp.tls import Encrypted, TlsEngine, words_of
from mailq.status import Endpoint

RECEIVE_BYTES: Final = 65_536
# sun_path has 108 bytes on Linux, 104 on BSD and macOS; the last is the NUL that ends it.
SOCKET_PATH_LIMIT_BYTES: Final = 107

_log: Final = logging.getLogger(__name__)

# What a socket that never waits raises, before and after encryption.
_NOT_YET: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_TIMED_OUT: Final = os.strerror(errno.ETIMEDOUT)
_A_MOMENT_SECONDS: Final = 0.01
"""Whoever waits for a server for longer than this steps aside."""
_A_MOMENT: Final = struct.pack("ll", 0, int(_A_MOMENT_SECONDS * 1_000_000))
"""The same as a struct timeval."""
# What poll(2) takes is an int of milliseconds.
_LONGEST_WAIT_SECONDS: Final = 2_000_000.0

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Aside = Callable[[], AbstractContextManager[object]]
"""Gives what a ``with`` block is spent in that only waits: others of this process may have something to do."""


class SocketConnection:
    """A connected stream socket; used by one thread at a time.

    The socket never waits to be written to, and only for a moment to be read: it is asked first and waited for only
    where there is nothing yet, since telling it each time how long it may wait would cost a system call before each
    read and each write. Encrypted, it never waits at all.

    Raises nothing but the errors of its methods.

    Args:
        connected: Belongs to the connection from here on.
        engine: Makes TLS handshakes.
        aside: Where waits for a server that takes its time are spent.
    """

    __slots__ = ("_aside", "_encrypted", "_engine", "_is_quick", "_poll", "_send_flags", "_socket")

    def __init__(self, connected: socket.socket, engine: TlsEngine, *, aside: Aside = nullcontext) -> None:
        self._socket = connected
        self._engine = engine
        self._aside = aside
        # Until it has answered once.
        self._is_quick = False
        self._encrypted: Encrypted | None = None
        self._send_flags: int = socket.MSG_DONTWAIT
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _A_MOMENT)
        self._poll = self._poller()

    @property
    def encrypted(self) -> bool:
        """Whether TLS is on."""
        return self._encrypted is not None

    def send(self, data: bytes, *, timeout_seconds: float) -> None:
        """Write all of *data*.

        Raises:
            ConnectionLostError: The peer is gone.
            ConnectionTimeoutError: Not all could be written within *timeout_seconds*, however much of it was.
        """
        try:
            sent = self._socket.send(data, self._send_flags)
        except _NOT_YET:
            sent = 0
        except OSError as error:
            raise ConnectionLostError(words_of(error)) from error
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:], time.monotonic() + timeout_seconds)

    def receive(self, *, timeout_seconds: float) -> bytes:
        """Return what has arrived, 1 to 65,536 bytes; 0 seconds or less only looks.

        Raises:
            ConnectionLostError: End of stream, or a reset.
            ConnectionTimeoutError: Nothing arrived for *timeout_seconds*.
        """
        if self._is_quick and self._encrypted is None and timeout_seconds > _A_MOMENT_SECONDS:
            data = self._receive_soon()
            if data:
                return data
        # What TLS has deciphered already, the system knows nothing of.
        deciphered = self._encrypted is not None and self._encrypted.socket.pending()
        if not deciphered and not self._is_heard(timeout_seconds):
            raise ConnectionTimeoutError(_TIMED_OUT)
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except _NOT_YET as error:
            data = self._receive_later(error, time.monotonic() + timeout_seconds)
        except OSError as error:
            raise ConnectionLostError(words_of(error)) from error
        if not data:
            raise ConnectionLostError("Connection closed by the server")
        if self._encrypted is not None:
            self._encrypted.heard()
        return data

    def start_tls(self, policy: TlsPolicy, *, host: str, timeout_seconds: float) -> TlsResult:
        """Encrypt from here on, and say how the server proved who it is.

        A server that proved nothing is no error here: the caller looks at ``verified_by``. Source: P-26.

        Args:
            policy: What is asked for; never of level ``none``.
            host: The server's name, for the TLS hello where the policy gives none.
            timeout_seconds: For the whole handshake.

        Raises:
            TlsHandshakeError: The handshake failed; the connection is of no use any more.
            SettingError: The policy's protocols or ciphers are not understood.
        """
        # Should the handshake fail, the socket is closed.
        self._poll = _nothing_to_wait_for
        self._encrypted = self._engine.handshake(self._socket, policy, host=host, timeout_seconds=timeout_seconds)
        self._socket = self._encrypted.socket
        self._socket.settimeout(0)
        self._send_flags = 0
        self._poll = self._poller()
        return self._encrypted.result

    @property
    def certificate(self) -> bytes | None:
        """The server's own certificate, DER; None without TLS."""
        own = None if self._encrypted is None else self._encrypted.certificate
        return None if own is None else own.der

    def channel_binding(self, kind: str) -> bytes | None:
        """Return what ties a log-in to this TLS session; None where it cannot be had. Source: RFC 5929.

        Args:
            kind: ``tls-unique``, which TLS 1.3 does not have, or ``tls-server-end-point``.
        """
        return None if self._encrypted is None else self._encrypted.channel_binding(kind)

    def close(self) -> None:
        """Release the socket; harmless when repeated, never raises."""
        # The system gives the number of a closed socket to the next one.
        self._poll = _nothing_to_wait_for
        with suppress(OSError, ValueError):
            if self._encrypted is not None and self._socket.fileno() >= 0:
                # Tells the peer that nothing was cut off, and does not wait for its answer.
                self._encrypted.socket.unwrap()
        with suppress(OSError):
            self._socket.close()

    def _is_heard(self, timeout_seconds: float) -> bool:
        """Wait until there is something to read; False where nothing came in time.

        A server that was quick the last time is given a moment before whoever waits steps aside.
        """
        if self._is_quick or timeout_seconds <= 0:
            moment = min(timeout_seconds, _A_MOMENT_SECONDS)
            if self._poll(_milliseconds(moment)):
                return True
            timeout_seconds -= moment
            if timeout_seconds <= 0:
                return False
        began_at = time.monotonic()
        with self._aside():
            heard = bool(self._poll(_milliseconds(timeout_seconds)))
        self._is_quick = time.monotonic() - began_at <= _A_MOMENT_SECONDS
        return heard

    def _receive_soon(self) -> bytes:
        """Return what a quick server says within a moment, by one system call; empty: nothing, or the end."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except _NOT_YET:
            data = b""
        except OSError as error:
            raise ConnectionLostError(words_of(error)) from error
        self._is_quick = bool(data)
        return data

    def _poller(self) -> Callable[[float], Sequence[object]]:
        """Return what waits for something to read."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return poller.poll

    def _send_rest(self, rest: memoryview, deadline: float) -> None:
        """Write what did not fit at once.

        A peer that takes a byte now and then must not hold us: the time does not start anew.
        """
        waits_for = select.POLLOUT
        while rest:
            self._wait(waits_for, deadline)
            waits_for = select.POLLOUT
            try:
                rest = rest[self._socket.send(rest, self._send_flags) :]
            except _NOT_YET as error:
                waits_for = _event(error, select.POLLOUT)
            except OSError as error:
                raise ConnectionLostError(words_of(error)) from error

    def _receive_later(self, error: OSError, deadline: float) -> bytes:
        """Read what is not there yet: with TLS, a part of something may be."""
        while True:
            self._wait(_event(error, select.POLLIN), deadline)
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except _NOT_YET as again:
                error = again
            except OSError as lost:
                raise ConnectionLostError(words_of(lost)) from lost

    def _wait(self, event: int, deadline: float) -> None:
        poller = select.poll()
        poller.register(self._socket, event)
        if not poller.poll(_milliseconds(deadline - time.monotonic())):
            raise ConnectionTimeoutError(_TIMED_OUT)


def _milliseconds(seconds: float) -> float:
    if seconds <= 0:
        return 0.0
    return seconds * 1000 if seconds < _LONGEST_WAIT_SECONDS else _LONGEST_WAIT_SECONDS * 1000


def _event(error: OSError, usual: int) -> int:
    """Return what to wait for: TLS may have to read before it can write, and the other way round."""
    if isinstance(error, ssl.SSLWantReadError):
        return select.POLLIN
    return select.POLLOUT if isinstance(error, ssl.SSLWantWriteError) else usual


def _nothing_to_wait_for(_: float) -> Sequence[object]:
    return (None,)


class SocketConnector:
    """Opens connections from the configured source addresses.

    Args:
        settings: network, bind_address, bind_address6, bind_address_enforce, inet_interfaces and those of TLS are used.
        engine: Makes TLS handshakes; None: as the settings say.
        aside: Where waits for a server that takes its time are spent.

    Raises:
        SettingError: A source address is not an address of its family, or TLS cannot be had as the settings want it.
    """

    def __init__(self, settings: Settings, *, engine: TlsEngine | None = None, aside: Aside = nullcontext) -> None:
        self._aside = aside
        self._loopback_only = settings.network == "loopback"
        self._engine = engine or TlsEngine(settings)
        self._enforce_source = settings.bind_address_enforce
        self._sources = {
            4: _source_address("bind_address", settings.bind_address, 4) or _only_own_address(settings, 4),
            6: _source_address("bind_address6", settings.bind_address6, 6) or _only_own_address(settings, 6),
        }

    def connect(self, endpoint: Endpoint, *, timeout_seconds: float) -> SocketConnection:
        """Connect to *endpoint*; 0 seconds means the operating system's limit.

        Raises:
            SocketPathTooLongError: No UNIX-domain socket can have this path.
            SourceAddressError: The source address cannot be used, and bind_address_enforce is on.
            ConnectFailedError: ``str()`` is the operating system's text, such as ``Connection refused``.
        """
        if endpoint.port is None:
            return self._connect_local(endpoint.address, timeout_seconds)
        try:
            address = ipaddress.ip_address(endpoint.address)
        except ValueError as error:
            raise ConnectFailedError(f"not an address: {endpoint.address}") from error
        if self._loopback_only and not address.is_loopback:
            raise ConnectFailedError("the setting network allows loopback addresses only")
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - the version is its name
        new = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._bind(new, address)
            new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._connected(new, (endpoint.address, endpoint.port), timeout_seconds)
        except BaseException:
            new.close()
            raise

    def _connect_local(self, path: str, timeout_seconds: float) -> SocketConnection:
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT_BYTES:
            raise SocketPathTooLongError(f"longer than {SOCKET_PATH_LIMIT_BYTES} bytes: {path}")
        new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            return self._connected(new, path, timeout_seconds)
        except BaseException:
            new.close()
            raise

    def _connected(self, new: socket.socket, where: tuple[str, int] | str, timeout_seconds: float) -> SocketConnection:
        try:
            new.settimeout(timeout_seconds if timeout_seconds > 0 else None)
            with self._aside():
                new.connect(where)
        except TimeoutError as error:
            raise ConnectFailedError(os.strerror(errno.ETIMEDOUT)) from error
        except (OSError, ValueError) as error:
            raise ConnectFailedError(words_of(error)) from error
        return SocketConnection(new, self._engine, aside=self._aside)

    def _bind(self, new: socket.socket, target: _Address) -> None:
        """Take the source address; where it cannot be had, go on without unless it is enforced. Source: C-81."""
        source = self._sources[target.version]
        if source is None:
            return
        try:
            new.bind((str(source), 0))
        except OSError as error:
            if self._enforce_source:
                raise SourceAddressError(f"{source}: {words_of(error)}") from error
            _log.warning("cannot connect from %s, using the system's choice: %s", source, words_of(error))


def _source_address(setting: str, text: str, version: int) -> _Address | None:
    """Read a setting: an address, with or without brackets, or empty."""
    bare = text.removeprefix("[").removesuffix("]")
    if not bare:
        return None
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise SettingError(f"{setting}: expected an IPv{version} address, got {text!r}")
    return address


def _only_own_address(settings: Settings, version: int) -> _Address | None:
    """Return the one own address of a family, where the settings name exactly one. Source: smtp-delivery C-82."""
    own: list[_Address] = []
    for text in settings.inet_interfaces:
        with suppress(ValueError):  # names and the words "all" and "loopback-only" name no one address
            own.append(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    family = [address for address in own if address.version == version]
    return family[0] if len(family) == 1 and not family[0].is_loopback else None
