"""What is said, waited for and made of it within one session: rows S, X, T and C one by one."""

import errno
import os
from collections import defaultdict
from datetime import timedelta

import pytest

from mailq.envelope import Protocol
from mailq.errors import ConnectionLostError, ConnectionTimeoutError, DestinationSyntaxError
from mailq.smtp.connection import SocketConnector
from mailq.status import Deferred, Stage
from tests.fakes.servers import FakeConnection, FakeServer
from tests.fakes.world import World, brief, reason


class Watched(FakeConnection):
    """Remembers how long each wait may last: by the first word sent before it."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.limits: dict[str, set[float]] = defaultdict(set)
        self._word = "greeting"

    def send(self, data: bytes, *, timeout_seconds: float) -> None:
        self._word = data.split()[0].decode() if self._content is None else "content"
        self.limits[self._word].add(timeout_seconds)
        super().send(data, timeout_seconds=timeout_seconds)

    def receive(self, *, timeout_seconds: float) -> bytes:
        self.limits[f"after {self._word}"].add(timeout_seconds)
        return super().receive(timeout_seconds=timeout_seconds)


def watch(world: World, make: type[FakeConnection]) -> list[FakeConnection]:
    """Let *world* connect by *make*, and return the connections."""
    made: list[FakeConnection] = []

    def connect(endpoint, *, timeout_seconds):
        world.connect_seconds = timeout_seconds
        made.append(make(world.servers["mx1"]))
        return made[-1]

    world.network.connect = connect
    return made


def only(world: World, *recipients: str, **fields: object) -> str:
    (outcome,) = world.deliver(*recipients, **fields).values()
    return brief(outcome)


def test_every_wait_has_the_limit_of_its_stage():
    """C-83 S-50 S-51 S-54 S-55 S-56 S-57 S-58."""
    world = World({"mx1": FakeServer(features=())})
    made = watch(world, Watched)
    world.deliver()
    (connection,) = made
    assert 30 == world.connect_seconds
    assert {
        "after greeting": 300,
        "after EHLO": 300,
        "after MAIL": 300,
        "after RCPT": 300,
        "after DATA": 120,
        "after content": 600,
    } == {stage: max(limits) for stage, limits in connection.limits.items() if stage.startswith("after")}
    assert {180} == connection.limits["content"]


def test_reset_starttls_and_lmtp_have_limits_of_their_own():
    """S-52 S-59 C-83."""
    world = World({"mx1": FakeServer(features=("STARTTLS",), mail="550 5.7.1 no")}, tls_security_level="may")
    made = watch(world, Watched)
    world.deliver()
    assert {300} == made[0].limits["after STARTTLS"]
    assert {20} == made[0].limits["after RSET"]
    world.deliver(nexthop="inet:mx1.dest.test", protocol=Protocol.LMTP)
    assert 0 == world.connect_seconds


def test_a_reply_that_drips_in_must_be_complete_within_its_limit():
    """S-61."""
    world = World({"mx1": FakeServer()})

    class Dripping(FakeConnection):
        def receive(self, *, timeout_seconds: float) -> bytes:
            world.clock.advance(100)
            return b"2"

    watch(world, Dripping)
    (outcome,) = world.deliver().values()
    assert "deferred 4.4.2 mx1.dest.test" == brief(outcome)
    assert "timed out while receiving the initial server greeting" in reason(outcome)
    assert 300 == world.clock.monotonic()


@pytest.mark.parametrize(("skip", "heard"), [(True, 0), (False, 1)])
def test_the_answer_to_quit_is_waited_for_only_by_setting(skip, heard):
    """S-60 X-12 X-42."""
    world = World({"mx1": FakeServer()}, skip_quit_response=skip)
    made = watch(world, Watched)
    assert "sent 2.0.0 mx1.dest.test" == only(world)
    assert "QUIT" == world.said("mx1")[-1]
    assert heard == len(made[0].limits["after QUIT"])


def test_a_quit_that_cannot_be_said_changes_no_outcome():
    """X-42 T-39."""
    world = World({"mx1": FakeServer()})

    class Leaving(FakeConnection):
        def send(self, data: bytes, *, timeout_seconds: float) -> None:
            if data.startswith(b"QUIT"):
                raise ConnectionLostError
            super().send(data, timeout_seconds=timeout_seconds)

    watch(world, Leaving)
    assert "sent 2.0.0 mx1.dest.test" == only(world)


def test_content_that_is_not_taken_in_time_is_a_timeout():
    """X-67."""
    world = World({"mx1": FakeServer()})

    class Full(FakeConnection):
        def send(self, data: bytes, *, timeout_seconds: float) -> None:
            if self._content is not None:
                raise ConnectionTimeoutError
            super().send(data, timeout_seconds=timeout_seconds)

    watch(world, Full)
    (outcome,) = world.deliver().values()
    assert "conversation with mx1.dest.test[192.0.2.1] timed out while sending message body" == reason(outcome)


@pytest.mark.parametrize(
    ("greeting", "settings", "word"),
    [
        ("220 mx ESMTP", {}, "EHLO"),
        ("220 mx", {}, "EHLO"),
        ("220 mx", {"always_send_ehlo": False}, "HELO"),
        ("220 mx ESMTP", {"always_send_ehlo": False}, "EHLO"),
        ("220 mx ESMTP", {"never_send_ehlo": True}, "HELO"),
    ],
)
def test_ehlo_is_said_where_it_is_understood_or_always(greeting, settings, word):
    """S-20."""
    world = World({"mx1": FakeServer(greeting=greeting)}, **settings)
    assert "sent 2.0.0 mx1.dest.test" == only(world)
    assert word == world.said("mx1")[0]


def test_a_transaction_repeated_in_plaintext_counts_once():
    """C-45 C-55."""
    server = FakeServer(features=("PIPELINING", "STARTTLS"), data=["!drop", "354 go on"])
    limits = {"mx_address_limit": 1, "mx_session_limit": 1}
    world = World({"mx1": server}, tls_security_level="may", **limits)
    assert "sent 2.0.0 mx1.dest.test" == only(world, age=timedelta(hours=1))
    assert ["mx1.dest.test"] * 2 == world.network.attempts


def test_after_starttls_comes_ehlo_whatever_was_said_before():
    """S-20 S-43."""
    server = FakeServer(greeting="220 mx ESMTP", features=("STARTTLS",))
    world = World({"mx1": server}, tls_security_level="may", helo_name="other.example")
    world.deliver()
    assert ["EHLO other.example", "STARTTLS", "TLS", "EHLO other.example"] == server.sessions[0][:4]


def test_lhlo_refused_for_good_bounces():
    """S-23."""
    world = World({"lm.test": FakeServer(lmtp=True, ehlo="550 5.7.1 go away")})
    outcome = world.deliver(nexthop="lm.test", protocol=Protocol.LMTP)["u@dest.test"]
    assert "bounced 5.7.1 lm.test" == brief(outcome)
    assert reason(outcome).endswith("refused to talk to me: 550 5.7.1 go away")


@pytest.mark.parametrize(
    ("server", "protocol", "handshake"),
    [
        (FakeServer(ehlo="!drop"), Protocol.SMTP, "EHLO"),
        (FakeServer(ehlo="502 what?", helo="!drop"), Protocol.SMTP, "HELO"),
        (FakeServer(ehlo="!drop", lmtp=True), Protocol.LMTP, "LHLO"),
    ],
)
def test_a_loss_names_the_handshake(server, protocol, handshake):
    """S-24 T-38."""
    world = World({"h.test": server})
    outcome = world.deliver(nexthop="[h.test]", protocol=protocol)["u@dest.test"]
    assert reason(outcome).endswith(f"while performing the {handshake} handshake")


def test_our_own_name_in_the_greeting_alone_is_no_loop():
    """S-17."""
    world = World({"mx1": FakeServer(greeting="220 client.example.net ESMTP")})
    assert "sent 2.0.0 mx1.dest.test" == only(world)


def test_content_goes_by_data_even_where_the_server_offers_chunks():
    """S-39."""
    world = World({"mx1": FakeServer(features=("CHUNKING", "PIPELINING"))})
    world.deliver()
    assert ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"] == world.said("mx1")


def test_where_a_server_spoke_its_name_and_words_are_known_and_else_neither():
    """T-32."""
    world = World({"mx1": FakeServer(rcpt="450 4.2.1 busy")})
    (spoken,) = world.deliver().values()
    assert isinstance(spoken, Deferred)
    assert spoken.failure.reply is not None
    assert "450 4.2.1 busy" == spoken.failure.reply.text
    (silent,) = World({"mx1": None}).deliver().values()
    assert isinstance(silent, Deferred)
    assert silent.failure.reply is None


def test_a_relayhost_that_is_a_list_is_not_recognised():
    """C-67: as in Postfix, so that a list moved from there keeps its meaning."""
    both = "gone1.test, gone2.test"
    assert "bounced 5.4.4 none" == only(World({}, relayhost=both), nexthop=both)
    assert "deferred 4.3.5 none" == only(World({}, relayhost="gone1.test"), nexthop="gone1.test")


def test_a_nexthop_or_fallback_relay_that_does_not_parse_is_for_the_operator():
    """C-15."""
    with pytest.raises(DestinationSyntaxError, match="missing"):
        World({"mx1": None}, fallback_relay=("[fb.test",)).deliver()


def test_a_socket_that_the_system_does_not_give_is_no_trouble_of_the_mail(monkeypatch):
    """C-86."""

    def none_left(*arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    world = World({"mx1": FakeServer()})
    world.network.connect = SocketConnector(world.settings).connect
    monkeypatch.setattr("mailq.smtp.connection.socket.socket", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        world.deliver()


def test_a_local_socket_has_no_opportunistic_tls_and_nobody_else_to_ask():
    """C-92 C-95 C-96."""
    server = FakeServer(lmtp=True, features=("STARTTLS",), tls_works=False, mail="451 4.3.0 later")
    world = World({"lm.test": server, "fb.test": FakeServer()}, tls_security_level="may", fallback_relay=("[fb.test]",))
    world.network._servers["/run/lmtp"] = server
    outcome = world.deliver(nexthop="unix:/run/lmtp", protocol=Protocol.LMTP)["u@dest.test"]
    assert "deferred 4.3.0 client.example.net" == brief(outcome)
    assert ["client.example.net"] == world.network.attempts
    assert ["LHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT"][:2] == world.said("lm.test")[:2]


def test_the_stages_read_as_the_end_of_a_sentence():
    """T-38."""
    assert "receiving the initial server greeting" == Stage.GREETING.value
    assert "sending end of data -- message may be sent more than once" == Stage.END_OF_DATA.value
