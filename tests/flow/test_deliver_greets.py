"""Greeting, EHLO, HELO and STARTTLS: rows S and P, as stories."""

from datetime import timedelta

import pytest

from tests.fakes.servers import FakeServer
from tests.fakes.world import ME, World, brief, reason


def test_a_busy_greeting_means_ask_the_next_server():
    """3.01: S-13 T-01."""
    world = World({"mx1": FakeServer(greeting="421 4.3.2 busy"), "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"


def test_a_busy_greeting_everywhere_defers_with_its_words():
    """3.02: S-14 T-02."""
    world = World({"mx1": FakeServer(greeting="450 4.3.2 busy")})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.2 mx1.dest.test"
    assert reason(outcome) == "host mx1.dest.test[192.0.2.1] refused to talk to me: 450 4.3.2 busy"
    assert world.said("mx1") == ["QUIT"]


def test_a_5xx_greeting_only_means_ask_the_next_server():
    """3.04: S-11."""
    world = World({"mx1": FakeServer(greeting="554 5.7.1 not you")})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.1 mx1.dest.test"
    assert reason(outcome).endswith("554 5.7.1 not you")


def test_a_5xx_greeting_bounces_where_that_is_configured():
    """3.05: S-12 T-03."""
    world = World({"mx1": FakeServer(greeting="554 5.7.1 not you"), "mx2": FakeServer()}, skip_5xx_greeting=False)
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.7.1 mx1.dest.test"
    assert world.network.attempts == ["mx1.dest.test"]


def test_a_greeting_that_makes_no_sense_bounces():
    """3.06: S-13 S-04."""
    world = World({"mx1": FakeServer(greeting="354 huh"), "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.5.0 mx1.dest.test"


def test_a_server_without_ehlo_is_spoken_to_with_helo():
    """3.07: S-21."""
    world = World({"mx1": FakeServer(ehlo="500 5.5.1 what")})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert world.said("mx1")[:3] == ["EHLO", "HELO", "MAIL"]


def test_ehlo_421_means_ask_the_next_server():
    """3.08: S-21."""
    world = World({"mx1": FakeServer(ehlo="421 4.3.2 later"), "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"


def test_helo_refused_for_good_bounces_without_asking_others():
    """3.09: S-22."""
    world = World({"mx1": FakeServer(ehlo="550 5.7.1 no", helo="550 5.7.1 no"), "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.7.1 mx1.dest.test"


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (FakeServer(greeting="!drop"), "lost connection with mx1.dest.test[192.0.2.1] while receiving the initial"),
        (FakeServer(greeting="!stall"), "conversation with mx1.dest.test[192.0.2.1] timed out while receiving the"),
        (FakeServer(ehlo="!stall"), "conversation with mx1.dest.test[192.0.2.1] timed out while performing the EHLO"),
        (FakeServer(ehlo="500 no", helo="!drop"), "lost connection with mx1.dest.test[192.0.2.1] while performing the"),
    ],
)
def test_a_stream_that_breaks_defers_with_the_stage(server, words):
    """3.12 3.13 3.14: S-15 T-35 T-36 T-38."""
    outcome = World({"mx1": server}).deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.4.2 mx1.dest.test"
    assert reason(outcome).startswith(words)
    assert "QUIT" not in server.sessions[0]


def test_a_best_server_that_says_our_name_is_ourselves():
    """3.15: S-30 C-40."""
    world = World({"mx1": FakeServer(name=ME), "mx2": FakeServer()})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "bounced 5.4.6 mx1.dest.test"
    assert reason(outcome) == "mail for dest.test loops back to myself"


def test_a_backup_server_that_says_our_name_only_defers():
    """3.16: S-30."""
    world = World({"mx1": None, "mx2": FakeServer(name=ME)})
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.4.6 mx2.dest.test"


def test_our_name_on_another_port_is_no_loop():
    """C-18."""
    world = World({"mx1": FakeServer(name=ME)})
    assert brief(world.deliver(nexthop="dest.test:2525")["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"


def starttls(**behaviour) -> FakeServer:
    return FakeServer(features=("PIPELINING", "8BITMIME", "STARTTLS"), **behaviour)


OLD = timedelta(hours=1)


def test_tls_is_used_where_offered():
    """6.14: P-20."""
    world = World({"mx1": starttls()}, tls_security_level="may")
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert world.said("mx1")[:5] == ["EHLO", "STARTTLS", "TLS", "EHLO", "MAIL"]


def test_a_refused_starttls_goes_on_in_plaintext_where_tls_is_optional():
    """6.06: P-21."""
    world = World({"mx1": starttls(starttls="454 4.7.0 not now")}, tls_security_level="may")
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert world.said("mx1")[:3] == ["EHLO", "STARTTLS", "MAIL"]


def test_required_tls_that_is_not_offered_asks_the_next_server():
    """6.09 6.10: P-23."""
    world = World({"mx1": FakeServer(), "mx2": starttls()}, tls_security_level="encrypt")
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"
    world = World({"mx1": FakeServer()}, tls_security_level="encrypt")
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.4 mx1.dest.test"
    assert reason(outcome) == "TLS is required, but was not offered by host mx1.dest.test[192.0.2.1]"


def test_required_tls_that_is_refused_for_good_bounces():
    """6.12: P-22 T-03."""
    world = World({"mx1": starttls(starttls="502 5.5.1 no"), "mx2": starttls()}, tls_security_level="encrypt")
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.5.1 mx1.dest.test"


def test_fresh_mail_never_falls_back_to_plaintext():
    """6.01 6.02: P-30 P-31."""
    world = World({"mx1": starttls(tls_works=False)}, tls_security_level="may")
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.7.5 mx1.dest.test"
    assert len(world.network.attempts) == 1
    assert world.destination_failure is None


def test_mail_deferred_before_is_retried_in_plaintext_on_the_same_server():
    """6.03 6.04: P-30 P-33 C-43 C-53."""
    limits = {"mx_address_limit": 1, "mx_session_limit": 1}
    world = World({"mx1": starttls(tls_works=False)}, tls_security_level="may", **limits)
    assert brief(world.deliver(age=OLD)["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert world.network.attempts == ["mx1.dest.test"] * 2
    assert world.said("mx1", 1)[:2] == ["EHLO", "MAIL"]


def test_a_plaintext_retry_that_fails_moves_on():
    """6.05: P-34."""
    first = starttls(tls_works=False, mail="450 4.3.0 no")
    world = World({"mx1": first, "mx2": FakeServer()}, tls_security_level="may")
    assert brief(world.deliver(age=OLD)["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"


def test_required_tls_is_never_retried_in_plaintext():
    """6.13: P-35."""
    world = World({"mx1": starttls(tls_works=False)}, tls_security_level="encrypt")
    assert brief(world.deliver(age=OLD)["u@dest.test"]) == "deferred 4.7.5 mx1.dest.test"
    assert len(world.network.attempts) == 1
    assert world.destination_failure is not None


def test_a_tls_session_lost_in_the_transaction_is_retried_in_plaintext_for_everybody_left():
    """6.24 6.26: P-32 C-45; differs from Postfix: who was only deferred is tried again, too."""
    rcpts = {"b@dest.test": ["450 4.2.1 busy", "250 ok"]}
    server = starttls(data=["!drop", "354 go on"], rcpts=rcpts)
    world = World({"mx1": server}, tls_security_level="may")
    outcomes = world.deliver("a@dest.test", "b@dest.test", age=OLD)
    assert {brief(o) for o in outcomes.values()} == {"sent 2.0.0 mx1.dest.test"}
    assert world.said("mx1", 1)[:2] == ["EHLO", "MAIL"]


def test_what_was_said_before_tls_is_forgotten():
    """RFC 3207 §4.2: features and pipelined plaintext from before the handshake do not count."""
    server = starttls(starttls="220 ready\n250 injected")
    world = World({"mx1": server}, tls_security_level="may")
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
