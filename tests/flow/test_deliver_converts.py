"""What is sent is what the server can take, and what hooks make of it: X-20 to X-23, X-62, S-05, T-09, T-37."""

from dataclasses import replace
from email import message_from_bytes

import pytest

from mailq.delivery.hooks import Hooks
from mailq.envelope import Encoding
from mailq.status import EnhancedStatus
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason

EIGHT_BIT = (
    b"From: s@sender.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n.A line with one caf\xc3\xa9 in it, and more text\r\n"
)
BAD_MIME = b"From: s@sender.test\r\nContent-Type: message/partial; id=x\r\n\r\ncaf\xc3\xa9\r\n"


def world_with(server: FakeServer, content: bytes = EIGHT_BIT, hooks: Hooks | None = None, **settings) -> World:
    world = World({"mx1": server}, **settings)
    world.bodies.content = content
    if hooks is not None:
        world.ports = replace(world.ports, hooks=hooks)
    return world


def mail_command(server: FakeServer) -> str:
    return next(line for line in server.sessions[0] if line.startswith("MAIL"))


def test_8_bit_content_is_converted_for_a_server_without_8bitmime_and_its_size_is_not_told():
    """4.45: X-62 X-21."""
    server = FakeServer(features=("SIZE 1000000",))
    assert brief(world_with(server).deliver(encoding=Encoding.EIGHT_BIT)["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert mail_command(server) == "MAIL FROM:<s@sender.test>"
    ((_, content),) = server.accepted
    assert content.isascii()
    text = message_from_bytes(content).get_payload(decode=True)
    assert text == ".A line with one café in it, and more text\r\n".encode()


def test_a_server_with_8bitmime_gets_the_content_as_it_is():
    """X-21 X-22."""
    server = FakeServer(features=("SIZE 1000000", "8BITMIME"))
    world_with(server).deliver(encoding=Encoding.EIGHT_BIT)
    assert mail_command(server) == f"MAIL FROM:<s@sender.test> SIZE={len(EIGHT_BIT)} BODY=8BITMIME"
    assert server.accepted == [("u@dest.test", EIGHT_BIT)]


def test_content_of_unknown_encoding_is_looked_at_and_sent_as_it_is_when_nothing_needs_conversion():
    """X-21."""
    server = FakeServer(features=("SIZE 1000000",))
    world_with(server, b"From: s@sender.test\r\n\r\nhello\r\n").deliver(encoding=None)
    assert mail_command(server) == "MAIL FROM:<s@sender.test>"
    assert server.accepted == [("u@dest.test", b"From: s@sender.test\r\n\r\nhello\r\n")]


def test_conversion_can_be_turned_off():
    """X-62."""
    server = FakeServer(features=("SIZE 1000000",))
    world_with(server, disable_mime_output_conversion=True).deliver(encoding=Encoding.EIGHT_BIT)
    assert mail_command(server) == f"MAIL FROM:<s@sender.test> SIZE={len(EIGHT_BIT)}"
    assert server.accepted == [("u@dest.test", EIGHT_BIT)]


def test_content_that_cannot_be_converted_bounces_before_a_word_of_it_is_said():
    """X-62."""
    server = FakeServer(features=())
    world = world_with(server, BAD_MIME)
    outcome = world.deliver(encoding=Encoding.EIGHT_BIT)["u@dest.test"]
    assert brief(outcome) == "bounced 5.6.3 mx1.dest.test"
    assert "does not offer 8BITMIME: it holds an 8-bit part of a kind that must not be" in reason(outcome)
    assert world.said("mx1") == ["EHLO", "QUIT"]


def test_a_reply_filter_changes_what_a_server_is_heard_to_say():
    """S-05."""
    hooks = Hooks(reply_filter=lambda line: line.replace(b"550 5.1.1", b"450 4.1.1"))
    world = world_with(FakeServer(rcpt="550 5.1.1 no such user"), hooks=hooks)
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.1.1 mx1.dest.test"


def broken(*given):
    raise ZeroDivisionError


LOCAL = "local data error while talking to mx1.dest.test[192.0.2.1]"


@pytest.mark.parametrize(
    "hooks",
    [
        Hooks(reply_filter=broken),
        Hooks(header_filter=broken),
        Hooks(header_filter=lambda field: b"no field"),
        Hooks(header_filter=lambda field: b"\r\n" + field),
        Hooks(header_filter=lambda field: None),
        Hooks(sender_rewrite=broken),
        Hooks(sender_rewrite=lambda address: "a@b>\r\nRCPT TO:<c@d"),
    ],
)
def test_a_hook_that_fails_defers_the_message_and_leaves_no_session_half_way(hooks):
    """T-37."""
    server = FakeServer()
    world = world_with(server, hooks=hooks)
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.0 mx1.dest.test"
    assert reason(outcome) == LOCAL
    assert server.accepted == []
    assert all(connection.closed for connection in world.network.connections)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (FakeServer(), "sent 2.0.0 mx1.dest.test"),
        (FakeServer(rcpt="550 5.1.1 no"), "deferred 4.3.0 mx1.dest.test"),
        (FakeServer(rcpt="450 4.1.1 no"), "deferred 4.3.0 mx1.dest.test"),
    ],
)
def test_a_status_filter_that_fails_defers_but_never_sends_twice(server, expected):
    """T-09 T-37."""
    assert brief(world_with(server, hooks=Hooks(status_filter=broken)).deliver()["u@dest.test"]) == expected


@pytest.mark.parametrize(
    ("server", "status", "expected"),
    [
        (FakeServer(rcpt="450 4.1.1 no"), "5.7.1", "bounced 5.7.1 mx1.dest.test"),
        (FakeServer(rcpt="550 5.1.1 no"), "4.7.1", "deferred 4.7.1 mx1.dest.test"),
        (FakeServer(), "2.6.0", "sent 2.6.0 mx1.dest.test"),
        (FakeServer(), "5.7.1", "sent 2.0.0 mx1.dest.test"),
        (FakeServer(rcpt="550 5.1.1 no"), "2.0.0", "deferred 4.3.0 mx1.dest.test"),
    ],
)
def test_a_status_filter_turns_deferrals_into_bounces_and_back_and_success_into_success_only(server, status, expected):
    """T-09."""
    hooks = Hooks(status_filter=lambda given, text: (EnhancedStatus.parse(status), text))
    assert brief(world_with(server, hooks=hooks).deliver()["u@dest.test"]) == expected


def test_a_status_filter_sees_and_may_change_the_text():
    """T-09."""
    seen = []

    def rename(status, text):
        seen.append((str(status), text))
        return status, "mailbox\nunknown"

    world = world_with(FakeServer(rcpts={"a@dest.test": "550 5.1.1 no"}), hooks=Hooks(status_filter=rename))
    outcomes = world.deliver("a@dest.test", "b@dest.test")
    assert reason(outcomes["a@dest.test"]) == "mailbox unknown"
    assert outcomes["b@dest.test"].reply.text == "250 2.0.0 mailbox unknown"
    said = "host mx1.dest.test[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)"
    assert sorted(seen) == [("2.0.0", "250 2.0.0 queued"), ("5.1.1", said)]


def test_a_header_filter_removes_replaces_and_adds_fields():
    def edit(field):
        if field.startswith(b"X-Secret:"):
            return b""
        return b"X-Added: 1\r\n" + field if field.startswith(b"Subject:") else field

    content = b"From: s@sender.test\r\nX-Secret: a\r\n b\r\nSubject: hello\r\n\r\nX-Secret: stays in the body\r\n"
    server = FakeServer()
    world_with(server, content, Hooks(header_filter=edit)).deliver()
    expected = b"From: s@sender.test\r\nX-Added: 1\r\nSubject: hello\r\n\r\nX-Secret: stays in the body\r\n"
    assert server.accepted == [("u@dest.test", expected)]


def test_sender_rewriting_reaches_the_envelope_and_the_header_fields_of_the_sender():
    content = (
        b'From: "me@host.local" <me@host.local> (me@host.local)\r\nReply-To: me@host.local,\r\n you@host.local\r\n'
        b"To: me@host.local\r\n\r\nme@host.local\r\n"
    )
    server = FakeServer()
    hooks = Hooks(sender_rewrite=lambda address: address.replace("host.local", "example.org"))
    world_with(server, content, hooks).deliver(sender="me@host.local")
    assert mail_command(server).startswith("MAIL FROM:<me@example.org>")
    assert server.accepted[0][1] == (
        b'From: "me@host.local" <me@example.org> (me@host.local)\r\nReply-To: me@example.org,\r\n you@example.org\r\n'
        b"To: me@host.local\r\n\r\nme@host.local\r\n"
    )


def test_the_null_sender_is_not_rewritten():
    server = FakeServer()
    world_with(server, hooks=Hooks(sender_rewrite=lambda address: f"x{address}")).deliver(sender="")
    assert mail_command(server).startswith("MAIL FROM:<>")
