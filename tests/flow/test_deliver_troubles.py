"""What the postmaster may see of a session that went wrong: rows C-70, S-06, T-30, T-37, T-40."""

from base64 import b64encode
from dataclasses import replace

import pytest

from mailq.delivery.hooks import Hooks
from mailq.delivery.transcript import LINES
from mailq.envelope import CacheRule
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief

TOLD = {"notify_classes": ("protocol", "data")}
KEPT = CacheRule(load=True, store=True)


def test_a_server_that_does_not_know_rcpt_is_a_protocol_error():
    """10.13: C-70 S-06 T-30 T-40."""
    world = World({"mx1": FakeServer(rcpt="503 5.5.1 not now")}, **TOLD)
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.5.1 mx1.dest.test"
    (trouble,) = world.troubles
    assert (str(trouble.endpoint), trouble.classes) == ("mx1.dest.test[192.0.2.1]:25", {"protocol"})
    assert trouble.transcript == (
        "In:  220 mx.example ESMTP",
        "Out: EHLO client.example.net",
        "In:  250-mx.example",
        "In:  250-PIPELINING",
        "In:  250 8BITMIME",
        "Out: MAIL FROM:<s@sender.test> BODY=7BIT",
        "Out: RCPT TO:<u@dest.test>",
        "Out: DATA",
        "In:  250 2.1.0 ok",
        "In:  503 5.5.1 not now",
        "In:  354 go on",
        "Out: .",
        "In:  554 5.5.1 no valid recipients",
    )


@pytest.mark.parametrize("behaviour", [{"rcpt": "550 5.1.1 no"}, {"mail": "451 4.3.0 busy"}, {"dot": "552 full"}])
def test_an_ordinary_refusal_is_no_trouble(behaviour):
    """C-70 T-30."""
    world = World({"mx1": FakeServer(**behaviour)}, **TOLD)
    world.deliver()
    assert world.troubles == ()


def test_a_line_that_is_no_reply_is_trouble_even_when_the_mail_is_taken():
    """S-01 C-70."""
    world = World({"mx1": FakeServer(mail="what is this?\n250 2.1.0 ok")}, **TOLD)
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    (trouble,) = world.troubles
    assert trouble.classes == {"protocol"}
    assert "In:  what is this?" in trouble.transcript


def test_garbage_before_tls_is_not_forgotten():
    """S-01 C-70."""
    server = FakeServer(greeting="hello\n220 mx.example ESMTP", features=("STARTTLS",))
    world = World({"mx1": server}, tls_security_level="may", **TOLD)
    world.deliver(cache=KEPT)
    (trouble,) = world.troubles
    assert trouble.classes == {"protocol"}
    assert len(world.cache) == 0


def test_a_hook_that_fails_is_a_data_error():
    """T-37 C-70."""

    def broken(line):
        raise ZeroDivisionError

    world = World({"mx1": FakeServer()}, **TOLD)
    world.ports = replace(world.ports, hooks=Hooks(header_filter=broken))
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.3.0 mx1.dest.test"
    assert [trouble.classes for trouble in world.troubles] == [{"data"}]


def test_each_session_with_trouble_is_told_of_in_its_order():
    """C-70."""
    world = World({"mx1": FakeServer(mail="500 what?"), "mx2": FakeServer()}, soft_bounce=True, **TOLD)
    world.servers["mx2"].mail = "500 what?"
    world.deliver()
    assert [trouble.endpoint.host for trouble in world.troubles] == ["mx1.dest.test", "mx2.dest.test"]


def test_by_default_nothing_is_kept():
    """C-70 S-06."""
    world = World({"mx1": FakeServer(rcpt="503 5.5.1 not now")})
    world.deliver()
    assert world.troubles == ()


def test_no_content_is_in_a_transcript():
    """S-06."""
    world = World({"mx1": FakeServer(dot="500 what?")}, **TOLD)
    world.bodies.content = b"Subject: private\r\n\r\nvery secret\r\n"
    world.deliver()
    (trouble,) = world.troubles
    assert [line for line in trouble.transcript if "secret" in line or "private" in line] == []


@pytest.mark.parametrize(
    ("mechanism", "answers", "shown"),
    [
        ("PLAIN", "500 what?", ["Out: AUTH PLAIN ***", "In:  500 what?"]),
        (
            "LOGIN",
            ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "500 what?"],
            ["Out: AUTH LOGIN", "In:  334 ***", "Out: ***", "In:  334 ***", "Out: ***", "In:  500 what?"],
        ),
    ],
)
def test_no_credentials_are_in_a_transcript(mechanism, answers, shown):
    """S-06 P-66."""
    login = {
        "sasl_auth_enable": True,
        "sasl_password_maps": ("dest.test=user:secret",),
        "sasl_security_options": ("noanonymous",),
    }
    server = FakeServer(features=(f"AUTH {mechanism}",), auth=answers)
    world = World({"mx1": server}, **login, **TOLD)
    world.deliver()
    (trouble,) = world.troubles
    assert list(trouble.transcript[-len(shown) :]) == shown
    for secret in (b"user", b"secret", b"\0user\0secret"):
        assert [line for line in trouble.transcript if b64encode(secret).decode() in line] == []


def test_a_transcript_has_the_last_lines_only():
    """S-06."""
    world = World({"mx1": FakeServer(dot="500 what?")}, **TOLD)
    world.deliver(*(f"u{number}@dest.test" for number in range(LINES)))
    (trouble,) = world.troubles
    assert len(trouble.transcript) == LINES
    assert trouble.transcript[-1] == "In:  500 what?"


def test_a_transcript_of_a_kept_session_begins_where_the_last_message_ended():
    """S-06 R-46."""
    world = World({"mx1": FakeServer(rcpt=["250 2.1.5 ok", "503 5.5.1 not now"])}, **TOLD)
    world.deliver(cache=KEPT)
    assert world.troubles == ()
    world.deliver(cache=KEPT)
    (trouble,) = world.troubles
    assert trouble.transcript[:2] == ("Out: RSET", "Out: MAIL FROM:<s@sender.test> BODY=7BIT")
