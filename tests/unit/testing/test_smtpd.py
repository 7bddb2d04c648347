"""The scripted server does what its script says, over real sockets, and remembers it."""

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailq.testing.smtpd import Delivery, Script, ScriptedSmtpServer, accepting, greylisting, rejecting
from tests.fakes.certificate import self_signed

ENVELOPE = b"EHLO me.test\r\nMAIL FROM:<s@x> SIZE=9\r\nRCPT TO:<a@x> NOTIFY=NEVER\r\nRCPT TO:<b@x>\r\nDATA\r\n"


class Client:
    """Says bytes and hears lines."""

    def __init__(self, server: ScriptedSmtpServer) -> None:
        family = socket.AF_INET if server.port else socket.AF_UNIX
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect((server.address, server.port) if server.port else server.address)
        self._lines = self.socket.makefile("rb")

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> str:
        """Return the next complete reply; empty at the end of the stream."""
        lines = [self._lines.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(self._lines.readline())
        return b"".join(lines).decode()

    def codes(self, count: int) -> list[str]:
        return [self.hear()[:3] for _ in range(count)]

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@contextmanager
def connected(server: ScriptedSmtpServer) -> Iterator[Client]:
    client = Client(server)
    try:
        yield client
    finally:
        client.close()


def test_a_message_is_taken_as_it_was_sent() -> None:
    with ScriptedSmtpServer() as server, connected(server) as client:
        client.say(ENVELOPE)
        assert ["220", "250", "250", "250", "250", "354"] == client.codes(6)
        client.say(b"..dots\r\na.\r\n..\r\n.\r\nQUIT\r\n")
        assert ["250", "221", ""] == client.codes(3)
        expected = Delivery(
            connection=1,
            sender="s@x",
            recipients=("a@x", "b@x"),
            content=b".dots\r\na.\r\n.\r\n",
            mail_parameters="SIZE=9",
            rcpt_parameters=("NOTIFY=NEVER", ""),
        )
        assert [expected] == server.wait_for(1)
        assert ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", ".", "QUIT"] == server.verbs()
        assert "RCPT TO:<b@x>" == server.commands[1][3]
        server.wait_until_idle()
        assert 0 == server.open_sessions


def test_the_extensions_are_announced() -> None:
    with ScriptedSmtpServer(Script(name="mx9.test", extensions=("DSN",))) as server, connected(server) as client:
        client.say(b"EHLO me\r\n")
        assert "220 mx9.test ESMTP\r\n" == client.hear()
        assert "250-mx9.test\r\n250 DSN\r\n" == client.hear()


@pytest.mark.parametrize("cut", range(1, len(b"x\r\n.\r\nQUIT\r\n")))
def test_the_end_of_the_content_is_found_wherever_it_is_cut(cut: int) -> None:
    rest = b"x\r\n.\r\nQUIT\r\n"
    with ScriptedSmtpServer() as server, connected(server) as client:
        client.say(ENVELOPE)
        client.codes(6)
        client.say(rest[:cut])
        client.say(rest[cut:])
        assert ["250", "221"] == client.codes(2)
        assert [b"x\r\n"] == [delivery.content for delivery in server.deliveries]


def test_empty_content_is_content() -> None:
    with ScriptedSmtpServer() as server, connected(server) as client:
        client.say(ENVELOPE)
        client.codes(6)
        client.say(b".\r\n")
        assert "250" == client.hear()[:3]
        assert [b""] == [delivery.content for delivery in server.deliveries]


def test_a_list_of_answers_is_used_one_after_the_other_and_the_last_repeats() -> None:
    script = Script(mail=["451 first", "452 second", "250 ok"])
    with ScriptedSmtpServer(script) as server:
        for expected in (["220", "451", "452"], ["220", "250", "250"]):
            with connected(server) as client:
                client.say(b"MAIL FROM:<>\r\nMAIL FROM:<>\r\n")
                assert expected == client.codes(3)


def test_a_function_answers_by_the_argument() -> None:
    with ScriptedSmtpServer(Script(rcpt=lambda who: f"250 {who}")) as server, connected(server) as client:
        client.say(b'RCPT TO:<"a>b"@x> ORCPT=x\r\n')
        client.hear()
        assert '250 "a>b"@x\r\n' == client.hear()


def test_each_connection_may_have_its_own_script() -> None:
    with ScriptedSmtpServer(by_connection=lambda number: Script(greeting=f"220 {number}")) as server:
        for number in (1, 2):
            with connected(server) as client:
                assert f"220 {number}\r\n" == client.hear()
        assert 2 == server.connections


def test_an_answer_may_hang_up_after_its_words() -> None:
    with ScriptedSmtpServer(Script(mail="421 4.3.2 bye !drop")) as server, connected(server) as client:
        client.say(b"MAIL FROM:<>\r\n")
        assert ["220 mx.test ESMTP\r\n", "421 4.3.2 bye\r\n", ""] == [client.hear() for _ in range(3)]


def test_an_answer_may_reset_the_connection() -> None:
    with ScriptedSmtpServer(Script(mail="!rst")) as server, connected(server) as client:
        client.hear()
        client.say(b"MAIL FROM:<>\r\n")
        with pytest.raises(ConnectionResetError):
            client.hear()


def test_an_answer_may_be_silence_until_the_client_goes() -> None:
    with ScriptedSmtpServer(Script(greeting="!stall")) as server:
        with connected(server) as client:
            client.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.hear()
        server.wait_until_idle()


def test_leaving_the_block_ends_silent_connections_too() -> None:
    with ScriptedSmtpServer(Script(greeting="220 hello !stall")) as server:
        client = Client(server)
        client.hear()
    assert "" == client.hear()
    client.close()
    assert 0 == server.open_sessions


def test_a_refused_message_is_no_delivery() -> None:
    with ScriptedSmtpServer(Script(dot="451 no room")) as server, connected(server) as client:
        client.say(ENVELOPE)
        client.codes(6)
        client.say(b"x\r\n.\r\n")
        assert "451" == client.hear()[:3]
        assert [] == server.deliveries


def test_commands_in_the_wrong_order_are_refused_by_good_sense() -> None:
    with ScriptedSmtpServer() as server, connected(server) as client:
        client.say(b"RCPT TO:<a@x>\r\nDATA\r\nHELO me\r\nNOOP\r\nVRFY x\r\nSTARTTLS\r\n")
        assert ["220", "503", "503", "250", "250", "502", "502"] == client.codes(7)


def test_reset_forgets_the_envelope() -> None:
    with ScriptedSmtpServer() as server, connected(server) as client:
        client.say(b"MAIL FROM:<s@x>\r\nRCPT TO:<a@x>\r\nRSET\r\nDATA\r\n")
        assert ["220", "250", "250", "250", "503"] == client.codes(5)


def test_the_server_may_interrupt_the_content() -> None:
    script = Script(during_content="552 5.3.4 too big !drop", during_content_after_bytes=100)
    with ScriptedSmtpServer(script) as server, connected(server) as client:
        client.say(ENVELOPE)
        client.codes(6)
        client.say(b"x" * 100)
        assert ["552 5.3.4 too big\r\n", ""] == [client.hear(), client.hear()]
        assert [] == server.deliveries


def test_an_lmtp_server_answers_for_each_recipient(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    script = Script(dot=["250 ok", "550 no"])
    with ScriptedSmtpServer(script, path=path, lmtp=True) as server, connected(server) as client:
        assert 0 == server.port
        client.say(ENVELOPE.replace(b"EHLO", b"LHLO"))
        client.codes(6)
        client.say(b"x\r\n.\r\n")
        assert ["250", "550"] == client.codes(2)
        assert [("a@x",)] == [delivery.recipients for delivery in server.wait_for(1)]
    assert not path.exists()


def test_starttls_encrypts_and_is_not_offered_again(tmp_path: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with ScriptedSmtpServer(certificate=self_signed(tmp_path)) as server:
        with smtplib.SMTP(server.address, server.port, timeout=10) as client:
            client.ehlo("me")
            assert client.has_extn("starttls")
            client.starttls(context=context)
            client.ehlo("me")
            assert not client.has_extn("starttls")
            client.sendmail("s@x", ["a@x"], b"x\r\n")
        assert [True] == [delivery.encrypted for delivery in server.wait_for(1)]


def test_greylisting_puts_each_recipient_off_once() -> None:
    with ScriptedSmtpServer(greylisting()) as server, connected(server) as client:
        client.say(b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n" * 2)
        assert ["220", "250", "451", "451", "250", "250"] == client.codes(6)


def test_greylisting_may_last_some_time() -> None:
    with ScriptedSmtpServer(greylisting(attempts=0, seconds=3600)) as server, connected(server) as client:
        client.say(b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@x>\r\n" * 2)
        assert ["220", "250", "451", "451"] == client.codes(4)


def test_rejecting_refuses_some_recipients_or_all() -> None:
    with ScriptedSmtpServer(rejecting("A@x")) as server, connected(server) as client:
        client.say(b"MAIL FROM:<>\r\nRCPT TO:<a@X>\r\nRCPT TO:<b@x>\r\n")
        assert ["220", "250", "550", "250"] == client.codes(4)
    with ScriptedSmtpServer(rejecting(reply="550 5.7.1 go away")) as server, connected(server) as client:
        client.say(b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\n")
        assert ["220", "250", "550"] == client.codes(3)


def test_waiting_for_mail_that_does_not_come_says_so() -> None:
    with ScriptedSmtpServer(accepting()) as server, pytest.raises(TimeoutError, match="0 of 1 deliveries"):
        server.wait_for(1, timeout_seconds=0.01)


def test_many_clients_are_served_at_once() -> None:
    clients = 50
    everybody_is_in = threading.Barrier(clients, timeout=30)

    def send(server: ScriptedSmtpServer) -> None:
        with connected(server) as client:
            client.hear()
            everybody_is_in.wait()
            for _ in range(10):
                client.say(b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n")
                client.codes(3)
                client.say(b"x\r\n.\r\n")
                client.hear()

    with ScriptedSmtpServer() as server:
        threads = [threading.Thread(target=send, args=(server,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        assert 500 == len(server.wait_for(500, timeout_seconds=60))
        assert clients == server.peak_sessions
        for thread in threads:
            thread.join(30)
