"""Mail to the servers that most of the world runs: what they answer, and what really lies in their queues."""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from random import Random
from typing import Self

import pytest

from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import CacheRule, DeliveryRequest, Protocol, Recipient
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnection, SocketConnector
from mailq.status import Bounced, Delivered, Endpoint, Outcome, RecipientId
from mailq.testing.receivers.daemon import Daemon, ReceiverMissingError
from mailq.testing.receivers.dovecot import DovecotLmtp
from mailq.testing.receivers.exim import EximServer
from mailq.testing.receivers.postfix import PostfixServer
from mailq.worker.wiring import SystemClock
from tests.fakes.poll import eventually
from tests.fakes.resolver import FakeResolver

HEADER = b"From: s@sender.test\r\nDate: Sun, 1 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@sender.test>\r\n"
CONTENT = HEADER + b"Subject: hello\r\n\r\n.a dot\r\n..two dots\r\nthe end\r\n"
SETTINGS = Settings(myhostname="client.test", network="loopback", inet_protocols=("ipv4",), tls_security_level="none")
KNOWN = ("ann@dest.test", "bob@dest.test")
BUSY = ("busy@dest.test",)


def start(make: Callable[[], Daemon]) -> AbstractContextManager[Daemon]:
    """Start a server; without its program the test is skipped, and fails where everything must be tested."""
    try:
        return make()
    except ReceiverMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"NOT TESTED ON A REAL RECEIVER: {error}")


@pytest.fixture(scope="module")
def postfix() -> Iterator[PostfixServer]:
    with start(lambda: PostfixServer(accepts=KNOWN, busy=BUSY)) as server:
        yield server


@pytest.fixture(scope="module")
def exim() -> Iterator[EximServer]:
    with start(lambda: EximServer(accepts=KNOWN, busy=BUSY)) as server:
        yield server


@pytest.fixture(params=["postfix", "exim"])
def receiver(request: pytest.FixtureRequest) -> PostfixServer | EximServer:
    server: PostfixServer | EximServer = request.getfixturevalue(request.param)
    return server


class Sender:
    """One worker process's share of the world, over real sockets."""

    def __init__(
        self, zone: Mapping[str, Mapping[str, list[str]]] | None = None, *, settings: Settings = SETTINGS
    ) -> None:
        clock = SystemClock()
        self._settings = settings
        self._sessions = SessionCache(clock)
        self._ports = Ports(
            clock=clock,
            resolver=FakeResolver(zone or {}, families=("ipv4",)),
            connector=SocketConnector(settings),
            bodies=self,
            rng=Random(1),
        )

    def open(self, queue_id: str) -> AbstractContextManager[io.BytesIO]:
        return nullcontext(io.BytesIO(CONTENT))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._sessions.close()

    def send(self, nexthop: str, *recipients: str, **fields: object) -> dict[str, str]:
        """Deliver one message; return word, status and server's host for each recipient."""
        return self.deliver(replace(self.request(nexthop, *recipients), **fields))

    def request(self, nexthop: str, *recipients: str) -> DeliveryRequest:
        now = self._ports.clock.now()
        return DeliveryRequest(
            queue_id="Q1",
            nexthop=nexthop,
            sender="s@sender.test",
            recipients=tuple(Recipient(RecipientId(i), address) for i, address in enumerate(recipients)),
            size_bytes=len(CONTENT),
            arrived_at=now,
            active_at=now,
        )

    def deliver(self, request: DeliveryRequest, following: DeliveryRequest | None = None) -> dict[str, str]:
        report = deliver(
            request,
            ports=replace(self._ports, following=lambda: following),
            settings=self._settings,
            sessions=self._sessions,
            on_settled=lambda settled: None,
        )
        return {recipient.address: _brief(report.outcomes[recipient.id]) for recipient in request.recipients}


@pytest.fixture
def sender() -> Iterator[Sender]:
    with Sender() as made:
        yield made


def _brief(outcome: Outcome) -> str:
    if isinstance(outcome, Delivered):
        return f"sent {outcome.reply.code} {outcome.endpoint.host}"
    word = "bounced" if isinstance(outcome, Bounced) else "deferred"
    reply, relay = outcome.failure.reply, outcome.failure.relay
    return f"{word} {reply.code if reply else 'no reply'} {relay.host if relay else 'none'}"


def _lines(content: str) -> list[str]:
    """Return the content without the header lines that servers put before it."""
    return content[content.index("From: s@sender.test") :].splitlines()


def test_each_recipient_of_one_message_gets_its_own_outcome(receiver, sender):
    """X-33 X-34 X-37 T-01 T-03 T-28: at a real server."""
    before = len(receiver.accepted())
    fates = sender.send(f"[127.0.0.1]:{receiver.port}", *KNOWN, "nobody@dest.test", *BUSY)
    busy = 450 if receiver.package == "postfix" else 451
    assert {
        "ann@dest.test": "sent 250 127.0.0.1",
        "bob@dest.test": "sent 250 127.0.0.1",
        "nobody@dest.test": "bounced 550 127.0.0.1",
        "busy@dest.test": f"deferred {busy} 127.0.0.1",
    } == fates
    ((recipients, content),) = receiver.accepted()[before:]
    assert sorted(KNOWN) == sorted(recipients)
    assert CONTENT.decode().splitlines() == _lines(content)


def test_nobody_accepted_leaves_nothing_in_the_queue(receiver, sender):
    """X-35 X-53: whatever the server makes of the DATA that was already on its way."""
    before = len(receiver.accepted())
    fates = sender.send(f"[127.0.0.1]:{receiver.port}", "nobody@dest.test")
    assert {"nobody@dest.test": "bounced 550 127.0.0.1"} == fates
    assert before == len(receiver.accepted())


def test_content_in_a_chunk_arrives_as_it_was(receiver):
    """S-39: BDAT, where the server takes chunks and groups of commands are not used."""
    before = len(receiver.accepted())
    with Sender(settings=replace(SETTINGS, discard_ehlo_keywords=("PIPELINING",))) as sender:
        fates = sender.send(f"[127.0.0.1]:{receiver.port}", "ann@dest.test", "nobody@dest.test")
    assert {"ann@dest.test": "sent 250 127.0.0.1", "nobody@dest.test": "bounced 550 127.0.0.1"} == fates
    ((recipients, content),) = receiver.accepted()[before:]
    assert ("ann@dest.test",) == recipients
    assert CONTENT.decode().splitlines() == _lines(content)
    if receiver.package == "postfix":
        eventually(lambda: " bdat=1 " in receiver.log())


def test_a_second_message_goes_over_the_session_that_was_kept(postfix, sender):
    """R-41 R-46 X-13: the server counts one connection."""
    connections = postfix.log().count(" connect from ")
    for _ in range(3):
        fates = sender.send(f"[127.0.0.1]:{postfix.port}", *KNOWN, cache=CacheRule(load=True, store=True))
        assert {"sent 250 127.0.0.1"} == set(fates.values())
    assert connections + 1 == postfix.log().count(" connect from ")


def test_whom_postfix_puts_off_exim_is_offered_and_nobody_else(postfix):
    """C-30 C-44 T-01 T-03 T-06: failover between real servers."""
    zone = {
        "dest.test": {"MX": ["10 postfix.test.", "20 exim.test."]},
        "postfix.test": {"A": ["127.0.0.1"]},
        "exim.test": {"A": ["127.0.0.2"]},
    }
    known = ("busy@dest.test", "nobody@dest.test")
    second = start(lambda: EximServer(accepts=known, address="127.0.0.2", port=postfix.port))
    with second as exim, Sender(zone) as sender:
        fates = sender.send(f"dest.test:{postfix.port}", "ann@dest.test", "nobody@dest.test", "busy@dest.test")
        assert {
            "ann@dest.test": "sent 250 postfix.test",
            "nobody@dest.test": "bounced 550 postfix.test",
            "busy@dest.test": "sent 250 exim.test",
        } == fates
        assert [("busy@dest.test",)] == [recipients for recipients, _ in exim.accepted()]


def test_lmtp_over_a_socket_gets_an_answer_for_each_mailbox(sender):
    """C-04 X-40 T-25: quota and storage trouble show only after the content."""
    with start(lambda: DovecotLmtp(accepts=("ann", "bob"), full=("full",), broken=("broken",))) as dovecot:
        users = ("ann", "nobody", "full", "bob", "broken")
        recipients = [f"{user}@dest.test" for user in users]
        fates = sender.send(f"unix:{dovecot.path}", *recipients, protocol=Protocol.LMTP)
        assert [
            "sent 250 client.test",
            "bounced 550 client.test",
            "bounced 552 client.test",
            "sent 250 client.test",
            "deferred 451 client.test",
        ] == list(fates.values())
        for user in ("ann", "bob"):
            assert [CONTENT.decode().splitlines()] == [_lines(content) for content in dovecot.mailbox(user)]
        assert [] == dovecot.mailbox("full") + dovecot.mailbox("broken")


def test_messages_whose_commands_follow_the_final_dot_arrive_as_others_do(receiver, sender, monkeypatch):
    """X-11 R-46: real servers take them so, and one refusal in between is nobody else's."""
    connected: list[Endpoint] = []
    connect = SocketConnector.connect

    def count(connector: SocketConnector, endpoint: Endpoint, *, timeout_seconds: float) -> SocketConnection:
        connected.append(endpoint)
        return connect(connector, endpoint, timeout_seconds=timeout_seconds)

    writes: list[bytes] = []
    send = SocketConnection.send

    def note(connection: SocketConnection, data: bytes, *, timeout_seconds: float) -> None:
        writes.append(data)
        send(connection, data, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(SocketConnector, "connect", count)
    monkeypatch.setattr(SocketConnection, "send", note)
    before = len(receiver.accepted())
    whom = ["ann@dest.test", "nobody@dest.test", "bob@dest.test", "ann@dest.test"]
    keep = CacheRule(load=True, store=True)
    messages = [replace(sender.request(f"[127.0.0.1]:{receiver.port}", who), cache=keep) for who in whom]
    fates = [sender.deliver(one, following) for one, following in zip(messages, [*messages[1:], None], strict=True)]
    sent, refused = "sent 250 127.0.0.1", "bounced 550 127.0.0.1"
    assert [sent, refused, sent, sent] == [fate[who] for who, fate in zip(whom, fates, strict=True)]
    assert 1 == len(connected)
    assert 2 == sum(b"\r\n.\r\nMAIL" in data for data in writes)
    eventually(lambda: len(receiver.accepted()) == before + 3)
