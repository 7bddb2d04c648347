"""One suite for everything that opens connections: the fake network, real sockets, and real sockets with TLS."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailq.delivery.ports import Connection, Connector
from mailq.errors import ConnectFailedError, ConnectionLostError, ConnectionTimeoutError, TlsHandshakeError
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.status import Endpoint
from mailq.testing.smtpd import Script, ScriptedSmtpServer
from tests.fakes.certificate import self_signed
from tests.fakes.servers import FakeNetwork, FakeServer

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

        def serve_fake(**answers: str) -> Endpoint:
            servers["192.0.2.1"] = FakeServer(**answers, tls_works="!" not in answers.get("starttls", ""))
            return Endpoint("mx.test", "192.0.2.1", 25)

        yield Net(FakeNetwork(servers), serve_fake)
        return
    with ExitStack() as stack:

        def serve(**answers: str) -> Endpoint:
            path = tmp_path / "socket" if request.param == "unix" else None
            real = ScriptedSmtpServer(Script(**answers), path=path, certificate=certificate)
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
    connection.start_tls(server_name="mx.test", timeout_seconds=10)
    assert connection.encrypted
    connection.send(b"MAIL FROM:<>\r\n", timeout_seconds=10)
    assert ["250 secret"] == hear(connection)
    connection.close()


def test_a_server_that_does_not_speak_tls_fails_the_handshake(net: Net) -> None:
    connection = net.connect(greeting="220 hello", starttls="220 go !garbage")
    hear(connection)
    connection.send(b"STARTTLS\r\n", timeout_seconds=10)
    assert b"220 go" == connection.receive(timeout_seconds=10)[:6]
    with pytest.raises(TlsHandshakeError):
        connection.start_tls(server_name="mx.test", timeout_seconds=10)
    connection.close()


def test_closing_twice_is_harmless(net: Net) -> None:
    connection = net.connect(greeting="220 hello")
    connection.close()
    connection.close()
