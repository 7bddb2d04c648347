"""One suite for everything that opens connections: the fake network, real sockets, and real sockets with TLS."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailq.delivery.ports import Connection, Connector
from mailq.errors import ConnectFailedError, ConnectionLostError, ConnectionTimeoutError, TlsHandshakeError
from mailq.security import TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.status import Endpoint
from mailq.testing.smtpd import Script, ScriptedSmtpServer
from tests.fakes.certificate import self_signed
from tests.fakes.servers import FakeNetwork, FakeServer

MAY = TlsPolicy(level=TlsLevel.MAY)
NOWHERE = Endpoint("nowhere.test", "127.0.0.1", 1)


@dataclass
class Net:
    """A connector, and a way to start servers that it can reach."""

    connector: Connector
    serve: Callable[..., Endpoint]

    def connect(self, **answers: str) -> Connection:
        return self.connector.connect(self.serve(**answers), timeout_seconds=10)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["fake", "tcp", "unix"])
def net(request: pytest.FixtureRequest, certificate: Path, tmp_path: Path) -> Iterator[Net]:
    if request.param == "fake":
        servers: dict[str, FakeServer] = {}

        def serve_fake(*, wrapper: bool = False, **answers: str) -> Endpoint:
            works = "!" not in answers.get("starttls", "")
            servers["192.0.2.1"] = FakeServer(**answers, tls_works=works, wrapper=wrapper)
            return Endpoint("mx.test", "192.0.2.1", 25)

        yield Net(FakeNetwork(servers), serve_fake)
        return
    with ExitStack() as stack:

        def serve(*, wrapper: bool = False, **answers: str) -> Endpoint:
            path = tmp_path / "socket" if request.param == "unix" else None
            real = ScriptedSmtpServer(Script(**answers), path=path, certificate=certificate, wrapper=wrapper)
            server = stack.enter_context(real)
            return Endpoint("mx.test", server.address, server.port or None)

        yield Net(SocketConnector(Settings(network="loopback")), serve)


def hear(connection: Connection, lines: int = 1) -> list[str]:
    """Return the next lines."""
    data = b""
    while data.count(b"\r\n") < lines:
        data += connection.receive(timeout_seconds=10)
    return data.decode().splitlines()


def test_what_is_sent_is_answered(net: Net) -> None:
    connection = net.connect(greeting="220 hello", mail="250 m", rcpt="250 r", data="354 d", dot="250 taken")
    assert ["220 hello"] == hear(connection)
    connection.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n", timeout_seconds=10)
    assert ["250 m", "250 r", "354 d"] == hear(connection, 3)
    connection.send(b"x\r\n.\r\n", timeout_seconds=10)
    assert ["250 taken"] == hear(connection)
    connection.close()


def test_a_server_that_is_not_there_refuses(net: Net) -> None:
    with pytest.raises(ConnectFailedError, match=r"^Connection refused$"):
        net.connector.connect(NOWHERE, timeout_seconds=10)


def test_the_end_of_the_stream_is_a_lost_connection(net: Net) -> None:
    connection = net.connect(greeting="220 hello", mail="!drop")
    hear(connection)
    connection.send(b"MAIL FROM:<>\r\n", timeout_seconds=10)
    with pytest.raises(ConnectionLostError):
        connection.receive(timeout_seconds=10)
    connection.close()


def test_writing_to_a_server_that_is_gone_is_a_lost_connection_sooner_or_later(net: Net) -> None:
    connection = net.connect(greeting="!drop")

    def write_on() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            connection.send(b"NOOP\r\n" * 1000, timeout_seconds=10)

    with pytest.raises(ConnectionLostError):
        write_on()
    connection.close()


def test_silence_is_a_timeout(net: Net) -> None:
    connection = net.connect(greeting="!stall")
    with pytest.raises(ConnectionTimeoutError):
        connection.receive(timeout_seconds=0.05)
    connection.close()


def test_tls_can_be_started(net: Net) -> None:
    connection = net.connect(greeting="220 hello", starttls="220 go", mail="250 secret")
    hear(connection)
    assert not connection.encrypted
    connection.send(b"STARTTLS\r\n", timeout_seconds=10)
    hear(connection)
    assert connection.channel_binding("tls-server-end-point") is None
    result = connection.start_tls(MAY, host="mx.test", timeout_seconds=10)
    assert connection.encrypted
    assert result.encrypted
    assert ("", "") == (result.verified_by, result.problem)
    assert (TlsLevel.MAY, MAY.source) == (result.level, result.source)
    connection.send(b"MAIL FROM:<>\r\n", timeout_seconds=10)
    assert ["250 secret"] == hear(connection)
    connection.close()


def test_a_server_that_proves_nothing_is_encrypted_to_and_told_apart(net: Net) -> None:
    """P-26. What follows from it is not the connection's to decide."""
    connection = net.connect(greeting="220 hello", starttls="220 go")
    hear(connection)
    connection.send(b"STARTTLS\r\n", timeout_seconds=10)
    hear(connection)
    policy = TlsPolicy(level=TlsLevel.SECURE, match=("mx.test",), source="tls_policy_maps")
    result = connection.start_tls(policy, host="mx.test", timeout_seconds=10)
    assert ("", "self-signed certificate") == (result.verified_by, result.problem)
    assert (TlsLevel.SECURE, "tls_policy_maps") == (result.level, result.source)
    connection.send(b"QUIT\r\n", timeout_seconds=10)
    assert ["221"] == [line[:3] for line in hear(connection)]
    connection.close()


def test_tls_can_come_before_the_greeting(net: Net) -> None:
    """S-18."""
    connection = net.connector.connect(net.serve(greeting="220 inside", wrapper=True), timeout_seconds=10)
    result = connection.start_tls(TlsPolicy(level=TlsLevel.ENCRYPT, wrapper=True), host="mx.test", timeout_seconds=10)
    assert result.encrypted
    assert ["220 inside"] == hear(connection)
    connection.close()


def test_tls_before_the_greeting_needs_a_server_that_does_so(net: Net) -> None:
    """S-18, P-30."""
    connection = net.connect(greeting="220 hello")
    with pytest.raises(TlsHandshakeError):
        connection.start_tls(TlsPolicy(level=TlsLevel.ENCRYPT, wrapper=True), host="mx.test", timeout_seconds=10)
    connection.close()


def test_a_server_that_does_not_speak_tls_fails_the_handshake(net: Net) -> None:
    connection = net.connect(greeting="220 hello", starttls="220 go !garbage")
    hear(connection)
    connection.send(b"STARTTLS\r\n", timeout_seconds=10)
    assert b"220 go" == connection.receive(timeout_seconds=10)[:6]
    with pytest.raises(TlsHandshakeError):
        connection.start_tls(MAY, host="mx.test", timeout_seconds=10)
    connection.close()


def test_closing_twice_is_harmless(net: Net) -> None:
    connection = net.connect(greeting="220 hello")
    connection.close()
    connection.close()
