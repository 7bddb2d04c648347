"""A batch whose time is up: it goes on unless something else is to be done, in a process that is late itself, too."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from mailq.envelope import DeliveryRequest
from mailq.errors import DatabaseUnavailableError
from mailq.queue.messages import Lease, NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.status import Outcome, RecipientId
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import CONTENT, NEXTHOP, Bench, taken_by_all


class Hall(Bench):
    """A bench at which each message takes longer than a batch may."""

    def __init__(self, store: Store, **settings: Any) -> None:
        super().__init__(store, **settings)
        self.passed = 0.0
        self.sent: list[str] = []
        self.after_first: Callable[[], object] = lambda: None
        self.runtime.monotonic = lambda: time.monotonic() + self.passed
        self.answer = self._slowly

    def _slowly(self, request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        if not self.sent:
            self.after_first()
        self.passed += 1.5 * self.settings.batch_time.total_seconds()
        self.sent.append(request.recipients[0].address)
        return taken_by_all(request, on_settled)

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> int:
        """Serve everybody; return how many leases that took."""
        claim_many, leases = self.store.claim_many, []

        def counted(*given: Any, **named: Any) -> Mapping[str, Lease]:
            found = claim_many(*given, **named)
            leases.extend(found)
            return found

        monkeypatch.setattr(self.store, "claim_many", counted)
        serve_nexthop(NEXTHOP, self.runtime)
        return len(leases)


def a_note(address: str, **fields: Any) -> NewMessage:
    recipients = (NewRecipient(address=address, nexthop=NEXTHOP),)
    return NewMessage(sender="a@sender.test", recipients=recipients, content=CONTENT, **fields)


@pytest.fixture
def hall(sqlite_url: str) -> Iterator[Hall]:
    store = Store.open(sqlite_url)
    yield Hall(store)
    store.close()


def test_a_batch_goes_on_when_its_time_is_up_and_nothing_else_is_to_be_done(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.queue(*[[f"r{number}@dest.test"] for number in range(3)])
    assert (1, 3) == (hall.serve(monkeypatch), len(hall.sent))


def test_a_batch_ends_when_its_time_is_up_and_another_tenants_mail_has_come(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.queue(*[[f"r{number}@dest.test"] for number in range(3)])
    hall.after_first = lambda: hall.store.insert([a_note("other@dest.test", tenant="another")])
    assert 1 < hall.serve(monkeypatch)
    assert hall.sent.index("other@dest.test") < 3


def test_tenants_have_a_turn_each_before_a_batch_of_theirs_ends(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.store.insert([a_note(f"{who}{number}@dest.test", tenant=who) for who in ("a", "b") for number in range(3)])
    monkeypatch.setattr(hall.runtime.desk, "has_room", lambda _nexthop: False)
    assert 3 == hall.serve(monkeypatch)
    assert ["a0@dest.test", "b0@dest.test"] == hall.sent[:2]
    assert [{"a", "b"}] * 3 == [{one[0] for one in hall.sent[first : first + 2]} for first in (0, 2, 4)]


def test_half_of_a_batch_that_would_take_long_is_for_somebody_who_is_called_and_the_rest_goes_on(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.queue(*[[f"r{number}@dest.test"] for number in range(10)])
    there: list[tuple[int, int]] = []

    def ring(*_: object, **__: object) -> bool:
        lease = hall.store.claim(NEXTHOP, owner="another", limit=100, lease_time=timedelta(minutes=1))
        if lease is not None:
            there.append((len(hall.sent), len(lease.attempts)))
        return True

    monkeypatch.setattr(hall.runtime.ringer, "ring", ring)
    assert 1 == hall.serve(monkeypatch)
    # Of ten, one is sent, and of the nine that are left the session keeps the one that is next and half of the others.
    assert [(1, 4)] == there
    assert [f"r{number}@dest.test" for number in range(6)] == hall.sent
    assert {ShownState.SENT: 6, ShownState.ACTIVE: 4} == {one: n for one, n in hall.store.counts().items() if n}


def test_whoever_waits_on_an_open_session_is_given_half_without_a_ring(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.queue(*[[f"r{number}@dest.test"] for number in range(10)])
    nudged: list[int] = []
    monkeypatch.setattr(hall.runtime.claims, "is_waited_for", lambda _nexthop: not nudged)
    monkeypatch.setattr(hall.runtime.claims, "nudge", lambda _nexthop: bool(hall.sent and not nudged.append(1)))
    monkeypatch.setattr(hall.runtime.desk, "has_room", lambda _nexthop: False)
    assert 2 == hall.serve(monkeypatch)
    assert ([1], 10) == (nudged, len(hall.sent))


@pytest.mark.parametrize("was_given", [True, False])
def test_what_may_not_have_been_given_back_is_not_sent_under_this_lease_and_is_due_when_it_ends(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, *, was_given: bool
) -> None:
    hall.queue(*[[f"r{number}@dest.test"] for number in range(10)])
    give_back, given = hall.store.give_back, []

    def unanswered(lease_id: int, recipients: Sequence[RecipientId]) -> None:
        if was_given:
            give_back(lease_id, recipients)
        given.extend(recipients)
        raise DatabaseUnavailableError("the answer was lost")

    monkeypatch.setattr(hall.store, "give_back", unanswered)
    monkeypatch.setattr(hall.runtime.desk, "has_room", lambda _nexthop: len(hall.sent) == 1)
    assert 2 == hall.serve(monkeypatch)
    assert (4, 10, 10) == (len(given), len(hall.sent), len(set(hall.sent)))


def test_where_nobody_could_share_it_the_batch_goes_on(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.queue(*[[f"r{number}@dest.test"] for number in range(10)])
    monkeypatch.setattr(hall.runtime.desk, "has_room", lambda _nexthop: False)
    assert (1, 10) == (hall.serve(monkeypatch), len(hall.sent))


def test_where_the_process_is_late_itself_the_batch_goes_on(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.runtime.pulse.note(1.0)
    hall.queue(*[[f"r{number}@dest.test"] for number in range(3)])
    assert (1, 3) == (hall.serve(monkeypatch), len(hall.sent))


def test_even_there_it_gives_way_to_more_urgent_mail(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    urgent = a_note("urgent@dest.test", priority=1)
    hall.runtime.pulse.note(1.0)
    hall.queue(*[[f"r{number}@dest.test"] for number in range(3)])
    hall.after_first = lambda: hall.store.insert([urgent])
    hall.serve(monkeypatch)
    assert ["r0@dest.test", "urgent@dest.test", "r1@dest.test", "r2@dest.test"] == hall.sent


def help_called(hall: Hall, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 0.1) -> list[int]:
    """Serve; return how many messages had been sent at each call for help."""
    rung: list[int] = []

    def ring(*_: object, **__: object) -> bool:
        rung.append(len(hall.sent))
        return True

    def quickly(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        hall.passed += seconds
        hall.sent.append(request.recipients[0].address)
        return taken_by_all(request, on_settled)

    monkeypatch.setattr(hall.runtime.ringer, "ring", ring)
    # Time that passes by itself, on a busy machine, would count for the server's.
    hall.runtime.monotonic = lambda: hall.passed
    hall.answer = quickly
    hall.serve(monkeypatch)
    return rung


def test_help_is_called_after_the_first_message_that_went_well_while_more_is_due_than_was_leased(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(sqlite_url)
    hall = Hall(store, lease_recipients=20)
    hall.queue(*[[f"r{number}@dest.test"] for number in range(50)])
    rung = help_called(hall, monkeypatch)
    assert (50, 1) == (len(hall.sent), rung[0])
    assert [1, 4, 7] == rung[:3]
    store.close()


def test_nobody_is_called_to_help_with_what_is_soon_done(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(sqlite_url)
    hall = Hall(store, lease_recipients=10)
    hall.queue(*[[f"r{number}@dest.test"] for number in range(25)])
    assert [10, 20] == help_called(hall, monkeypatch, seconds=0.05)
    store.close()


def test_no_help_is_called_for_in_a_batch_that_is_all_there_is(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(sqlite_url)
    hall = Hall(store, lease_recipients=15)
    hall.queue(*[[f"r{number}@dest.test"] for number in range(15)])
    assert [] == [one for one in help_called(hall, monkeypatch) if one < 15]
    store.close()


def test_where_there_is_no_room_it_is_asked_for_less_and_less_often(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(sqlite_url)
    hall, asked = Hall(store), []
    hall.queue(*[[f"r{number}@dest.test"] for number in range(150)])
    monkeypatch.setattr(hall.runtime.desk, "has_room", lambda _nexthop: asked.append(len(hall.sent)))
    help_called(hall, monkeypatch)
    assert 1 == asked[0]
    # Each quarter of a second would be forty times in this batch; whether others should share it is asked, too.
    assert len([one for one in asked if one < 100]) <= 10
    store.close()
