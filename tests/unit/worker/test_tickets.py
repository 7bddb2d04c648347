"""A ticket is one connection's: none is opened without, none outlives it, and an idle one gives it up."""

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from mailq.delivery.ports import Passage, Way
from mailq.delivery.session_cache import SessionCache
from mailq.errors import BrokerUnavailableError, NoRoomError
from mailq.limits.gates import WELL, Bar, Feedback, Gate, Refused, Verdict
from mailq.limits.local_limits import LocalLimits
from mailq.limits.rules import RuleBook, Traffic
from mailq.limits.rules_file import read_rules
from mailq.limits.shares import UNPROVEN
from mailq.settings import Settings
from mailq.status import Endpoint
from mailq.worker.desk import Desk
from mailq.worker.tickets import Ticket
from tests.fakes.clock import FakeClock

ENDPOINT = Endpoint("mx.test", "127.0.0.1", 25)
WAY = Way(endpoint=ENDPOINT, hosts=("mx.test",))
SITE = "site:mx.test"
SICK = Feedback(verdict=Verdict.NEGATIVE, status="4.3.2", reason="no")


class Sites:
    """Where servers are kept, in a dictionary."""

    def __init__(self) -> None:
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.unproven: frozenset[str] = frozenset()

    def proven(self, nexthops: Collection[str], *, within: timedelta) -> frozenset[str]:
        return frozenset(nexthops) - self.unproven

    def hosts_of(self, nexthops: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        return {one: self.hosts[one] for one in nexthops if one in self.hosts}

    def note_hosts(self, nexthop: str, hosts: Iterable[str]) -> None:
        self.hosts[nexthop] = tuple(hosts)


class Talk:
    """A session as far as a cache looks at it."""

    def __init__(self, passage: Passage) -> None:
        self.passage: Passage | None = passage
        self.key = ("smtp", "127.0.0.1")
        self.closed = False

    def quit(self) -> None:
        self.close()

    def close(self) -> None:
        passage, self.passage, self.closed = self.passage, None, True
        if passage is not None:
            passage.leave()


class Scene:
    """A process with rules, and its idle sessions."""

    def __init__(self, rules: str = '[site."mx.test"]\nsessions = 1\n', **settings: Any) -> None:
        self.clock = FakeClock()
        self.limits = LocalLimits(time=lambda: int(self.clock.monotonic() * 1e6))
        options = Settings(**settings)
        book = RuleBook(options, file=read_rules(rules, name="limits.toml"))
        self.sites = Sites()
        self.sessions = SessionCache(self.clock)
        self.desk = Desk(
            self.limits,
            rules=lambda: book,
            settings=options,
            sites=self.sites,
            sessions=self.sessions,
            owner="w",
        )

    def enter(self, nexthop: str) -> Ticket:
        ticket = self.desk.enter(nexthop)
        assert isinstance(ticket, Ticket), ticket
        return ticket

    def connect(self, ticket: Ticket, way: Way = WAY) -> Talk:
        return Talk(ticket.admit(way))

    def keep(self, talk: Talk) -> None:
        self.sessions.keep(talk, None)  # type: ignore[arg-type]  # as far as a cache looks at it

    def busy(self, *keys: str) -> list[int]:
        return [one.busy for one in self.limits.look([Gate(key=key) for key in keys])]


def test_a_session_is_counted_for_its_nexthop_and_for_its_site_until_it_ends() -> None:
    scene = Scene()
    ticket = scene.enter("a.test")
    talk = scene.connect(ticket)
    assert [1, 1] == scene.busy("nexthop:a.test", SITE)
    talk.close()
    ticket.end(drained=True)
    assert [0, 0] == scene.busy("nexthop:a.test", SITE)


def test_nobody_connects_to_a_full_site_and_the_key_is_named() -> None:
    scene = Scene()
    scene.connect(scene.enter("a.test"))
    with pytest.raises(NoRoomError) as caught:
        scene.enter("b.test").admit(WAY)
    assert (SITE, None) == (caught.value.key, caught.value.wait_seconds)


def test_what_was_learned_about_a_site_turns_tasks_away_at_the_door() -> None:
    scene = Scene()
    scene.connect(scene.enter("a.test"))
    scene.sites.note_hosts("b.test", ["mx.test"])
    refused = scene.desk.enter("b.test")
    assert isinstance(refused, Refused)
    assert (SITE, Bar.FULL) == (refused.key, refused.bar)
    assert {"b.test": SITE} == scene.desk.obstacles(["b.test", "c.test"], urgent=False)


def test_room_is_given_out_once() -> None:
    scene = Scene()
    for nexthop in ("a.test", "b.test", "c.test"):
        scene.sites.note_hosts(nexthop, ["mx.test"])
    assert {"b.test": SITE, "c.test": SITE} == scene.desk.obstacles(["a.test", "b.test", "c.test"], urgent=False)


def test_an_idle_session_keeps_its_place_after_its_task_and_gives_it_up_to_another_nexthop() -> None:
    scene = Scene()
    ticket = scene.enter("a.test")
    talk = scene.connect(ticket)
    scene.keep(talk)
    ticket.end(drained=True)
    assert [1, 1] == scene.busy("nexthop:a.test", SITE)
    other = scene.connect(scene.enter("b.test"))
    assert (True, False) == (talk.closed, other.closed)
    assert [0, 1, 1] == scene.busy("nexthop:a.test", "nexthop:b.test", SITE)


def test_an_idle_session_that_another_task_takes_is_counted_once() -> None:
    scene = Scene()
    first = scene.enter("a.test")
    talk = scene.connect(first)
    first.end(drained=True)
    second = scene.enter("b.test")
    assert talk.passage is not None
    assert 1 == second.claim_on(talk.passage)
    talk.passage = second.take_over(talk.passage)
    assert [0, 1, 1] == scene.busy("nexthop:a.test", "nexthop:b.test", SITE)
    second.end(drained=True)
    talk.close()
    assert [0, 0] == scene.busy("nexthop:b.test", SITE)


def test_a_task_goes_on_with_its_own_session_and_nobody_else_does() -> None:
    scene = Scene()
    first, second = scene.enter("a.test"), scene.enter("b.test")
    talk = scene.connect(first)
    assert talk.passage is not None
    assert (2, 0) == (first.claim_on(talk.passage), second.claim_on(talk.passage))
    assert talk.passage is first.take_over(talk.passage)


def test_a_task_that_connects_anew_ends_the_session_it_has_kept() -> None:
    scene = Scene()
    ticket = scene.enter("a.test")
    talk = scene.connect(ticket)
    scene.keep(talk)
    scene.connect(ticket)
    assert talk.closed
    assert [1] == scene.busy(SITE)


def test_a_server_of_another_site_is_counted_there_instead() -> None:
    scene = Scene('[site."*"]\nsessions = 1\n')
    ticket = scene.enter("a.test")
    scene.connect(ticket).close()
    scene.connect(ticket, Way(endpoint=Endpoint("mx.far.test", "127.0.0.2", 25), hosts=("mx.far.test",), first=False))
    assert [1, 0, 1] == scene.busy("nexthop:a.test", SITE, "site:mx.far.test")


def test_a_server_in_a_block_of_addresses_counts_for_its_provider() -> None:
    scene = Scene('[provider.p]\naddresses = ["127.0.0.0/8"]\nsessions = 1\n')
    scene.connect(scene.enter("a.test"))
    with pytest.raises(NoRoomError, match="provider:p"):
        scene.enter("b.test").admit(WAY)


def test_a_task_moves_to_another_nexthop_with_what_they_share() -> None:
    scene = Scene()
    scene.sites.note_hosts("b.test", ["mx.test"])
    ticket = scene.enter("a.test")
    scene.connect(ticket)
    assert (SITE,) == ticket.shared_keys
    assert scene.desk.move(ticket, "b.test") is None
    assert ("b.test", [0, 1, 1]) == (ticket.nexthop, scene.busy("nexthop:a.test", "nexthop:b.test", SITE))


def test_a_task_does_not_move_where_there_is_no_room() -> None:
    scene = Scene(destination_concurrency_limit=1)
    ticket = scene.enter("a.test")
    scene.enter("b.test")
    refused = scene.desk.move(ticket, "b.test")
    assert refused is not None
    assert ("nexthop:b.test", "a.test") == (refused.key, ticket.nexthop)


def test_what_is_held_is_renewed_but_for_tasks_that_stall() -> None:
    scene = Scene()
    good, bad = scene.enter("a.test"), scene.enter("b.test")
    for _ in range(3):
        scene.clock.advance(40)
        scene.desk.renew(stalled={bad})
    assert [1, 0] == scene.busy("nexthop:a.test", "nexthop:b.test")
    good.end(drained=True)
    scene.desk.renew(stalled=())
    assert [0] == scene.busy("nexthop:a.test")


def test_a_ticket_given_back_during_the_renewal_is_not_held_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    ticket, renew = scene.enter("a.test"), scene.limits.renew

    def slow(held: Any, **options: Any) -> frozenset[str]:
        ticket.end(drained=True)
        return renew(held, **options)

    monkeypatch.setattr(scene.limits, "renew", slow)
    scene.desk.renew()
    assert [0] == scene.busy("nexthop:a.test")


def test_a_rate_makes_a_session_wait_a_moment_and_end_when_it_would_be_long() -> None:
    scene = Scene('[destination."a.test"]\nrate = "2/s"\n')
    ticket = scene.enter("a.test")
    waits = [ticket.spend(1) for _ in range(2)]
    assert 0 == waits[0]
    assert 0 < waits[1] <= 1
    with pytest.raises(NoRoomError) as caught:
        ticket.spend(1)
    assert caught.value.wait_seconds is not None
    assert caught.value.wait_seconds > 1


def test_a_tenant_without_room_bars_nobody_else() -> None:
    scene = Scene("[tenant.acme]\nsessions = 1\n")
    first, second = scene.enter("a.test"), scene.enter("a.test")
    first.turn_to("acme")
    with pytest.raises(NoRoomError, match="tenant:acme"):
        second.turn_to("acme")
    second.turn_to("other")
    first.turn_to("")
    second.turn_to("acme")
    assert [1] == scene.busy("tenant:acme")
    second.end(drained=True)
    assert [0] == scene.busy("tenant:acme")


def test_a_window_that_dies_is_told_of_and_lives_on_since_the_queue_keeps_the_death() -> None:
    """Source: smtp-delivery Q-31, Q-35."""
    scene = Scene()
    ticket = scene.enter("a.test")
    for _ in range(3):
        ticket.note(SICK)
    ticket.tell()
    assert ["nexthop:a.test"] == [change.key for change in ticket.died]
    ticket.end(drained=False)
    assert isinstance(scene.desk.enter("a.test"), Ticket)


def test_a_nexthop_of_which_nothing_good_is_known_leaves_its_lane_once_it_did_well() -> None:
    scene = Scene()
    scene.sites.unproven = frozenset({"a.test"})
    ticket = scene.enter("a.test")
    assert [1] == scene.busy(UNPROVEN)
    scene.desk.proven.note_well("a.test")
    ticket.prove()
    assert [0, 1] == scene.busy(UNPROVEN, "nexthop:a.test")


def test_an_idle_session_is_in_no_lane() -> None:
    scene = Scene()
    scene.sites.unproven = frozenset({"a.test"})
    ticket = scene.enter("a.test")
    scene.keep(scene.connect(ticket))
    ticket.end(drained=True)
    assert [0, 1] == scene.busy(UNPROVEN, SITE)


def test_a_connection_is_used_for_no_more_messages_than_the_least_limit_of_its_mail() -> None:
    rules = '[default]\nmessages_per_session = 9\n[site."mx.test"]\nmessages_per_session = 4\n'
    scene = Scene(rules)
    ticket = scene.enter("a.test")
    assert 4 == ticket.admit(WAY).most_messages
    assert 9 == scene.enter("b.test").admit(Way(endpoint=ENDPOINT, hosts=("other.test",))).most_messages


def test_a_connection_without_such_a_limit_is_used_for_any_number() -> None:
    scene = Scene()
    assert 0 == scene.enter("a.test").admit(WAY).most_messages


def test_the_most_recipients_at_once_are_the_least_that_nexthop_site_and_tenant_have() -> None:
    scene = Scene('[site."mx.test"]\nrecipients_per_transaction = 5\n[tenant.t]\nrecipients_per_transaction = 3\n')
    scene.sites.note_hosts("a.test", ["mx.test"])
    assert [5, 3, 50] == [
        scene.desk.recipients_per_transaction("a.test"),
        scene.desk.recipients_per_transaction("a.test", tenant="t"),
        scene.desk.recipients_per_transaction("b.test"),
    ]


def test_good_news_are_told_in_bulk_and_at_the_end() -> None:
    scene = Scene()
    ticket = scene.enter("a.test")
    ticket.spend(1)
    ticket.note(WELL)
    ticket.end(drained=False)
    (view,) = scene.limits.look(scene.desk.gates(Traffic(nexthop="a.test")))
    assert 6 == view.window


@pytest.mark.parametrize(("sessions", "asks"), [(1, 4), (1000, 1)])
def test_sessions_of_a_process_ask_together_no_more_than_so_often(
    monkeypatch: pytest.MonkeyPatch, sessions: int, asks: int
) -> None:
    scene = Scene()
    ticket, asked, now = scene.enter("a.test"), 0, time.monotonic()
    for number in range(1, sessions):
        scene.enter(f"{number}.test")
    spend = scene.limits.spend

    def counted(*words: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return spend(*words, **options)

    monkeypatch.setattr(scene.limits, "spend", counted)
    for second in range(1, 10):
        monkeypatch.setattr(time, "monotonic", lambda second=second: now + second)
        ticket.spend(1)
    assert asks == asked


def test_slots_that_cannot_be_given_back_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    ticket = scene.enter("a.test")

    def dead(*_words: Any, **_options: Any) -> None:
        raise BrokerUnavailableError("down")

    monkeypatch.setattr(scene.limits, "release", dead)
    ticket.end(drained=True)
    assert [1] == scene.busy("nexthop:a.test")
    scene.clock.advance(61)
    assert [0] == scene.busy("nexthop:a.test")
