"""What is kept, under which name, and who finds it again: rows R one by one."""

from datetime import timedelta

import pytest

from mailq.envelope import CacheRule, Protocol
from mailq.security import NO_TLS
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief

KEEP = CacheRule(load=True, store=True)
BUSY = "450 4.2.1 busy"


def send(world: World, **fields: object) -> list[str]:
    return [brief(outcome) for outcome in world.deliver(cache=KEEP, **fields).values()]


def equals(*names: str) -> dict[str, object]:
    """Return a zone in which these servers of dest.test are of one preference."""
    return {"dest.test": {"MX": [f"10 {name}.dest.test." for name in names]}}


def test_a_session_that_failed_with_its_site_says_quit_and_is_not_kept():
    """R-01 R-02 R-04 T-21 C-72."""
    world = World({"mx1": FakeServer(greeting="450 4.3.2 not now")})
    assert ["deferred 4.3.2 mx1.dest.test"] == send(world)
    assert ["QUIT"] == world.said("mx1")
    assert 0 == len(world.cache)


def test_a_session_whose_stream_broke_is_closed_without_a_word():
    """R-02 C-72 T-21."""
    world = World({"mx1": FakeServer(dot="!stall")})
    assert ["deferred 4.4.2 mx1.dest.test"] == send(world)
    assert "QUIT" not in world.said("mx1")
    assert world.network.connections[0].closed
    assert 0 == len(world.cache)


def test_a_session_too_old_says_quit_after_its_transaction():
    """C-71 C-85 R-03."""
    world = World({"mx1": FakeServer()}, connection_reuse_time_limit=timedelta(seconds=0))
    assert ["sent 2.0.0 mx1.dest.test"] == send(world)
    assert "QUIT" == world.said("mx1")[-1]
    assert 0 == len(world.cache)


def test_reuses_are_counted_and_a_reused_session_keeps_its_count():
    """R-05 R-14."""
    world = World({"mx1": FakeServer()}, connection_reuse_count_limit=2)
    for _ in range(3):
        send(world)
    assert ["QUIT"] == [session[-1] for session in world.servers["mx1"].sessions]


def test_destinations_do_not_share_a_session_under_their_own_names():
    """R-11 C-69."""
    zone = {"other.test": {"MX": ["10 mx2.dest.test."]}}
    world = World({"mx1": FakeServer(), "mx2": FakeServer()}, zone=zone)
    assert ["sent 2.0.0 mx1.dest.test"] == send(world)
    assert ["sent 2.0.0 mx2.dest.test"] == send(world, nexthop="other.test")


def test_destinations_share_the_session_of_a_server_they_have_in_common():
    """R-12 R-42."""
    zone = {"other.test": {"MX": ["10 mx1.dest.test."]}}
    world = World({"mx1": FakeServer()}, zone=zone)
    send(world)
    send(world, nexthop="other.test")
    assert ["mx1.dest.test"] == world.network.attempts


def test_a_session_of_one_protocol_is_not_found_by_the_other():
    """R-11 R-12 R-13."""
    world = World({"both.test": FakeServer(lmtp=True)}, lmtp_tcp_port="25")
    send(world, nexthop="[both.test]:25")
    send(world, nexthop="both.test:25", protocol=Protocol.LMTP)
    assert ["both.test"] * 2 == world.network.attempts


def test_a_kept_session_remembers_what_the_server_offers():
    """R-14 R-15: the announced size as well, which Postfix forgets."""
    world = World({"mx1": FakeServer(features=("PIPELINING", "SIZE 100"))})
    assert ["sent 2.0.0 mx1.dest.test"] == send(world)
    assert ["bounced 5.3.4 mx1.dest.test"] == send(world, size_bytes=101)
    assert 1 == len(world.network.attempts)


def test_the_oldest_of_several_sessions_is_taken_and_nobody_else_gets_it():
    """R-17."""
    world = World({"mx1": FakeServer()})
    key = (Protocol.SMTP, "192.0.2.1", 25, NO_TLS)
    send(world)
    first = world.cache.take_by_endpoint(key)
    assert first is not None
    send(world)
    assert 2 == len(world.network.attempts)
    world.cache.keep(first, None)
    assert world.cache.take_by_endpoint(key) not in {first, None}
    assert first is world.cache.take_by_endpoint(key)
    assert world.cache.take_by_endpoint(key) is None


def test_a_destination_whose_sessions_are_gone_is_looked_for_by_server():
    """R-17: a name that leads nowhere is passed over."""
    zone = {"other.test": {"MX": ["10 mx1.dest.test."]}}
    world = World({"mx1": FakeServer()}, zone=zone, connection_reuse_count_limit=1)
    send(world)
    send(world, nexthop="other.test")
    assert 0 == len(world.cache)
    assert ["sent 2.0.0 mx1.dest.test"] == send(world)
    assert 2 == len(world.network.attempts)


def test_the_first_site_with_servers_decides_about_keeping():
    """C-26 R-21: a list whose first name is known keeps, whoever takes the mail."""
    settings = {"connection_cache_destinations": ("dest.test",), "fallback_relay": ("[fb.test]",)}
    world = World({"mx1": None, "fb.test": FakeServer()}, **settings)
    assert ["sent 2.0.0 fb.test"] == [brief(o) for o in world.deliver().values()]
    assert 1 == len(world.cache)


def test_when_the_first_site_has_no_server_nothing_is_kept():
    """R-21 D-06."""
    world = World({"fb.test": FakeServer()}, fallback_relay=("[fb.test]",))
    assert ["sent 2.0.0 fb.test"] == send(world)
    assert 0 == len(world.cache)


def test_a_single_message_keeps_nothing_unless_the_queue_asks():
    """R-31."""
    world = World({"mx1": FakeServer()})
    world.deliver()
    world.deliver()
    assert ["mx1.dest.test"] * 2 == world.network.attempts


def test_a_destination_leads_to_its_session_at_every_tls_level():
    """R-40: what HEAD of Postfix loses."""
    features = ("PIPELINING", "STARTTLS")
    world = World({"mx1": None, "mx2": FakeServer(features=features)}, tls_security_level="may")
    assert ["sent 2.0.0 mx2.dest.test"] * 2 == send(world) + send(world)
    assert ["mx1.dest.test", "mx2.dest.test"] == world.network.attempts


def test_a_session_of_an_equal_server_is_used_before_a_new_one_is_opened():
    """R-42 R-43: the server passed over meanwhile is still asked, where Postfix takes the other for the last one."""
    mx2 = FakeServer(rcpt=["250 ok", BUSY])
    world = World({"mx1": FakeServer(), "mx2": mx2}, zone=equals("mx1", "mx2"))
    send(world, nexthop="[mx2.dest.test]")
    assert ["sent 2.0.0 mx1.dest.test"] == send(world)
    assert ["mx2.dest.test", "mx1.dest.test"] == world.network.attempts


def test_the_best_preference_is_that_of_the_list_before_used_servers_leave_it():
    """C-25 R-47: a backup server is not taken for a best one because the best one was used."""
    backup = FakeServer(name="client.example.net")
    world = World({"mx1": FakeServer(rcpt=["250 ok", BUSY]), "mx2": backup})
    send(world)
    assert ["deferred 4.4.6 mx2.dest.test"] == send(world)


def test_a_backup_servers_kept_session_is_used_when_its_turn_comes():
    """R-50 C-38 C-57."""
    first = FakeServer(rcpt=["250 ok", BUSY])
    world = World({"mx1": first, "mx2": FakeServer()})
    send(world, nexthop="[mx2.dest.test]")
    send(world)
    assert ["sent 2.0.0 mx2.dest.test"] == send(world)
    assert ["mx2.dest.test", "mx1.dest.test"] == world.network.attempts


def test_a_local_sockets_session_is_kept_under_its_path():
    """C-91 C-93."""
    world = World({"lm.test": FakeServer(lmtp=True)})
    world.network._servers = {"/run/lmtp": world.servers["lm.test"]}
    for _ in range(2):
        assert ["sent 2.0.0 client.example.net"] == send(world, nexthop="unix:/run/lmtp", protocol=Protocol.LMTP)
    assert ["client.example.net"] == world.network.attempts


@pytest.mark.parametrize("rset", ["250 ok", "502 never heard of it"])
def test_the_answer_to_the_reset_after_a_refused_message_changes_no_outcome(rset):
    """X-41 T-39."""
    world = World({"mx1": FakeServer(data="451 4.3.0 later", rset=rset)})
    assert ["deferred 4.3.0 mx1.dest.test"] == send(world)
