"""What only real sockets do: source addresses, forbidden targets, full buffers. Source: smtp-delivery C-81 to C-94."""

import errno
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailq.errors import (
    ConnectFailedError,
    ConnectionLostError,
    ConnectionTimeoutError,
    SettingError,
    SocketPathTooLongError,
    SourceAddressError,
    TlsHandshakeError,
)
from mailq.security import TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.smtp.connection import RECEIVE_BYTES, SocketConnection, SocketConnector
from mailq.status import Endpoint
from tests.fakes.poll import eventually

MAY = TlsPolicy(level=TlsLevel.MAY)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Peer:
    """The other end, by hand."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind((address, 0))
        self.listener.listen()
        self.listener.settimeout(10)
        self.endpoint = Endpoint("mx.test", address, self.listener.getsockname()[1])
        self.accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        self.accepted.append(self.listener.accept()[0])
        return self.accepted[-1]

    def close(self) -> None:
        for each in (self.listener, *self.accepted):
            each.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def pair(peer: Peer) -> Iterator[tuple[SocketConnection, socket.socket]]:
    """Both ends of one connection."""
    connection = SocketConnector(Settings()).connect(peer.endpoint, timeout_seconds=10)
    yield connection, peer.accept()
    connection.close()


class Bench:
    """Where waits are spent that last; one a wait."""

    def __init__(self) -> None:
        self.waits = 0

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.waits += 1
        yield


def answering_after(seconds: float, peer: socket.socket) -> threading.Timer:
    timer = threading.Timer(seconds, peer.sendall, args=(b"250 Ok\r\n",))
    timer.start()
    return timer


def test_who_connects_or_waits_for_a_slow_server_steps_aside_and_nobody_else(peer: Peer) -> None:
    bench = Bench()
    connection = SocketConnector(Settings(), aside=bench.aside).connect(peer.endpoint, timeout_seconds=10)
    assert 1 == bench.waits
    other = peer.accept()
    other.sendall(b"220 hello\r\n")
    eventually(lambda: connection.receive(timeout_seconds=0.05))
    before = bench.waits
    for _ in range(3):
        # What is there already is not waited for, however slow the server was before.
        other.sendall(b"250 Ok\r\n")
        assert select.select([connection._socket], [], [], 10)[0]
        connection.receive(timeout_seconds=10)
    assert before == bench.waits
    for _ in range(2):
        timer = answering_after(0.1, other)
        assert b"250 Ok\r\n" == connection.receive(timeout_seconds=10)
        timer.join()
    assert before + 2 == bench.waits
    with pytest.raises(ConnectionTimeoutError):
        connection.receive(timeout_seconds=0.05)
    with pytest.raises(ConnectionTimeoutError):
        connection.receive(timeout_seconds=0)
    assert before + 3 == bench.waits
    connection.close()


def source_of(peer: Peer, **settings: object) -> str:
    """Return the address that a connection with these settings comes from."""
    connection = SocketConnector(Settings(**settings)).connect(peer.endpoint, timeout_seconds=10)
    address: str = peer.accept().getpeername()[0]
    connection.close()
    return address


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "10.0.0.1", "::ffff:192.0.2.1", "0.0.0.0", "::"])
def test_on_a_loopback_network_no_other_address_is_connected_to(address: str) -> None:
    connector = SocketConnector(Settings(network="loopback"))
    with pytest.raises(ConnectFailedError, match=r"^the setting network allows loopback addresses only$"):
        connector.connect(Endpoint("mx.test", address, 25), timeout_seconds=10)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_on_a_loopback_network_loopback_addresses_are_connected_to(address: str) -> None:
    peer = Peer(address)
    connection = SocketConnector(Settings(network="loopback")).connect(peer.endpoint, timeout_seconds=10)
    peer.accept().sendall(b"220 hello\r\n")
    assert b"220 hello\r\n" == connection.receive(timeout_seconds=10)
    connection.close()
    peer.close()


def test_a_name_is_not_an_address() -> None:
    with pytest.raises(ConnectFailedError, match=r"^not an address: localhost$"):
        SocketConnector(Settings()).connect(Endpoint("localhost", "localhost", 25), timeout_seconds=10)


def test_without_a_timeout_the_system_decides(peer: Peer) -> None:
    connection = SocketConnector(Settings()).connect(peer.endpoint, timeout_seconds=0)
    peer.accept().sendall(b"x")
    assert b"x" == connection.receive(timeout_seconds=10)
    connection.close()


def test_a_connect_that_takes_too_long_has_the_systems_words() -> None:
    full = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    endpoint = Endpoint("mx.test", "127.0.0.1", full.getsockname()[1])
    waiting = []

    def connect_on() -> None:
        # The system drops what does not fit into the queue of a listener that never accepts.
        waiting.extend(SocketConnector(Settings()).connect(endpoint, timeout_seconds=0.2) for _ in range(10))

    with pytest.raises(ConnectFailedError, match=f"^{os.strerror(errno.ETIMEDOUT)}$"):
        connect_on()
    for each in waiting:
        each.close()
    full.close()


def test_a_socket_that_does_not_exist_has_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailedError, match=f"^{os.strerror(errno.ENOENT)}$"):
        SocketConnector(Settings()).connect(Endpoint("me", str(tmp_path / "none"), None), timeout_seconds=10)


def test_a_path_longer_than_a_socket_address_is_a_failure_of_its_own() -> None:
    with pytest.raises(SocketPathTooLongError):
        SocketConnector(Settings()).connect(Endpoint("me", "/" + "x" * 119, None), timeout_seconds=10)


@pytest.mark.parametrize("bind_address", ["127.0.0.9", "[127.0.0.9]"])
def test_connections_come_from_the_source_address(peer: Peer, bind_address: str) -> None:
    assert "127.0.0.9" == source_of(peer, bind_address=bind_address)


def test_a_source_address_of_the_other_family_does_not_matter(peer: Peer) -> None:
    assert "127.0.0.1" == source_of(peer, bind_address6="2001:db8::1", bind_address_enforce=True)


def test_a_source_address_that_cannot_be_had_is_told_and_done_without(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert "127.0.0.1" == source_of(peer, bind_address="192.0.2.1")
    assert "192.0.2.1" in caplog.text


def test_an_enforced_source_address_that_cannot_be_had_fails_the_connect(peer: Peer) -> None:
    with pytest.raises(SourceAddressError, match=r"^192\.0\.2\.1: "):
        source_of(peer, bind_address="192.0.2.1", bind_address_enforce=True)


@pytest.mark.parametrize(
    "interfaces", [("192.0.2.1",), ("[192.0.2.1]", "::1"), ("192.0.2.1", "mail.home.test", "2001:db8::1")]
)
def test_the_only_own_address_of_the_family_is_the_source(peer: Peer, interfaces: tuple[str, ...]) -> None:
    with pytest.raises(SourceAddressError, match=r"^192\.0\.2\.1: "):
        source_of(peer, inet_interfaces=interfaces, bind_address_enforce=True)


@pytest.mark.parametrize(
    "interfaces", [("all",), ("loopback-only",), ("192.0.2.1", "192.0.2.2"), ("127.0.0.1",), ("2001:db8::1",)]
)
def test_several_own_addresses_or_a_loopback_address_are_no_source(peer: Peer, interfaces: tuple[str, ...]) -> None:
    assert "127.0.0.1" == source_of(peer, inet_interfaces=interfaces, bind_address_enforce=True)


@pytest.mark.parametrize(
    "wrong", [{"bind_address": "::1"}, {"bind_address": "mail.home.test"}, {"bind_address6": "192.0.2.1"}]
)
def test_a_source_address_that_is_none_is_refused_at_once(wrong: dict[str, str]) -> None:
    (name,) = wrong
    with pytest.raises(SettingError, match=f"^{name}: "):
        SocketConnector(Settings(**wrong))


def test_writing_to_a_peer_that_does_not_read_times_out(pair: tuple[SocketConnection, socket.socket]) -> None:
    connection, _silent = pair
    with pytest.raises(ConnectionTimeoutError):
        connection.send(b"x" * 50_000_000, timeout_seconds=0.1)


def test_a_large_write_arrives_whole_at_a_peer_that_reads(pair: tuple[SocketConnection, socket.socket]) -> None:
    connection, peer = pair
    arrived = []

    def read() -> None:
        while data := peer.recv(RECEIVE_BYTES):
            arrived.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    content = bytes(range(256)) * 40_000
    connection.send(content, timeout_seconds=10)
    connection.close()
    reader.join(30)
    assert content == b"".join(arrived)


def test_at_zero_seconds_only_what_has_arrived_is_received(pair: tuple[SocketConnection, socket.socket]) -> None:
    connection, peer = pair
    with pytest.raises(ConnectionTimeoutError):
        connection.receive(timeout_seconds=0)
    with pytest.raises(ConnectionTimeoutError):
        connection.receive(timeout_seconds=-1)
    peer.sendall(b"x")
    assert b"x" == connection.receive(timeout_seconds=10)


def test_no_more_than_64_kib_are_received_at_a_time(pair: tuple[SocketConnection, socket.socket]) -> None:
    connection, peer = pair
    writer = threading.Thread(target=peer.sendall, args=(b"x" * 1_000_000,))
    writer.start()
    received = 0
    while received < 1_000_000:
        data = connection.receive(timeout_seconds=10)
        assert RECEIVE_BYTES >= len(data)
        received += len(data)
    writer.join(10)


def test_parting_words_can_be_read_after_a_write_has_failed(pair: tuple[SocketConnection, socket.socket]) -> None:
    """A server that refuses large content says so, and closes with our data unread. Source: smtp-delivery X-66."""
    connection, peer = pair

    def refuse() -> None:
        peer.recv(10)
        peer.sendall(b"552 5.3.4 too big\r\n")
        peer.close()

    server = threading.Thread(target=refuse)
    server.start()
    with pytest.raises(ConnectionLostError):
        connection.send(b"x" * 50_000_000, timeout_seconds=10)
    server.join(10)
    assert b"552 5.3.4 too big\r\n" == connection.receive(timeout_seconds=10)


def test_a_reset_is_a_lost_connection(pair: tuple[SocketConnection, socket.socket]) -> None:
    connection, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.close()
    with pytest.raises(ConnectionLostError, match=f"^{os.strerror(errno.ECONNRESET)}$"):
        connection.receive(timeout_seconds=10)


def test_a_handshake_with_a_silent_peer_times_out(pair: tuple[SocketConnection, socket.socket]) -> None:
    connection, _silent = pair
    with pytest.raises(TlsHandshakeError):
        connection.start_tls(MAY, host="mx.test", timeout_seconds=0.1)
    with pytest.raises(ConnectionLostError):
        connection.send(b"plain", timeout_seconds=10)
