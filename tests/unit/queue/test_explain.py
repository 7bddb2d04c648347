"""The words and numbers of an explanation, blocker by blocker."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailq.queue.backoff import RetrySchedule
from mailq.queue.blockers import Blocker, Sessions
from mailq.queue.explain import Explanation, explain
from mailq.queue.schedules import Labels
from mailq.queue.sites import DeadSite
from mailq.queue.situation import MOST_COUNTED, Holding, SignedBy, Situation
from mailq.queue.states import ShownState, State
from mailq.queue.suspend import Suspension

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SCHEDULE = RetrySchedule(5 * MINUTE, 60 * MINUTE, timedelta(days=5))
ROOM = Sessions(limit=20, owners=())
DUE = Situation(
    now=NOW,
    recipient_id=7,
    queue_id="QUEUEID",
    sender="ann@home.test",
    address="bob@far.test",
    nexthop="far.test",
    priority=5,
    labels=Labels(),
    stored_state=State.QUEUED,
    state=ShownState.DEFERRED,
    claimable=True,
    is_due=True,
    is_fresh=False,
    may_be_claimed=True,
    due_at=NOW - MINUTE,
    attempts=2,
    arrived_at=NOW - HOUR,
    expires_at=None,
    last_status="4.2.0",
    last_reason="host mx.far.test said: 450 4.2.0 later",
    finished_at=None,
    uncertain_at=None,
    stumbles=0,
    fault="",
    holding=None,
    signed_by=None,
    suspension=None,
    dead=None,
    next_ring_at=NOW,
    dispatcher="worker 1",
    warned_at=None,
    ahead=0,
)
LATER = replace(DUE, is_due=False, due_at=NOW + 10 * MINUTE)
STOP = Suspension(pattern="site:*.test", since_at=NOW - HOUR, until_at=None, actor="ann@home.test", reason="they move")
DEAD = DeadSite(since=NOW - HOUR, probe_at=NOW + MINUTE, status="4.4.1", reason="Connection timed out")
LEASED = Holding(owner="worker 1", since_at=NOW - MINUTE, ends_at=NOW + MINUTE, is_over=False, at_work=True)
BY_ANN = SignedBy(action="hold", actor="ann@home.test", at=NOW - HOUR, reason="wrong link")


def of(situation: Situation, *, sessions: Sessions = ROOM, schedule: RetrySchedule = SCHEDULE) -> Explanation:
    return explain(situation, sessions=sessions, schedule=schedule)


def leased(**fields: Any) -> Situation:
    active = replace(DUE, stored_state=State.LEASED, state=ShownState.ACTIVE, claimable=False)
    return replace(active, holding=replace(LEASED, **fields))


@pytest.mark.parametrize(
    ("situation", "blocker", "said"),
    [
        (DUE, Blocker.NOTHING, "is due since 2026-03-01 11:59:00 UTC and is taken up as soon as"),
        (replace(DUE, ahead=3), Blocker.NOTHING, "behind 3 others"),
        (replace(DUE, ahead=MOST_COUNTED), Blocker.NOTHING, "behind at least 1000 others"),
        (replace(DUE, is_fresh=True), Blocker.NOT_NOTICED, "is new, and the dispatcher's round"),
        (
            LATER,
            Blocker.NOT_DUE,
            "waits until 2026-03-01 12:10:00 UTC (in 0:10:00), because the last answer was: 4.2.0",
        ),
        (replace(LATER, attempts=0), Blocker.SCHEDULED, "is scheduled for 2026-03-01 12:10:00 UTC"),
        (
            replace(LATER, suspension=STOP),
            Blocker.NOT_DUE,
            "also, far.test is suspended (site:*.test) by ann@home",
        ),
        (replace(DUE, suspension=STOP), Blocker.SUSPENDED, "until somebody resumes it: they move"),
        (replace(DUE, dead=DEAD, may_be_claimed=False), Blocker.DEAD_DESTINATION, "tried at 2026-03-01 12:01:00 UTC"),
        (replace(DUE, dead=DEAD, may_be_claimed=None), Blocker.DEAD_DESTINATION, "one recipient is tried now"),
        (replace(DUE, dispatcher=None), Blocker.NO_WORKER, "but no worker is alive"),
        (
            replace(DUE, stored_state=State.HELD, signed_by=BY_ANN),
            Blocker.HELD,
            "held by ann@home.test since 2026-03",
        ),
        (replace(DUE, stored_state=State.HELD, signed_by=BY_ANN), Blocker.HELD, ": wrong link."),
        (replace(DUE, stored_state=State.HELD), Blocker.HELD, "bob@far.test is held."),
        (
            replace(DUE, stored_state=State.HELD, uncertain_at=NOW),
            Blocker.UNCERTAIN,
            "may have been sent at 2026-03",
        ),
        (
            replace(DUE, stored_state=State.QUARANTINED, stumbles=3, fault="Traceback\n  x\nValueError: no"),
            Blocker.QUARANTINED,
            "3 attempts in a row made our own code stumble: ValueError: no",
        ),
        (leased(), Blocker.BEING_DELIVERED, "is being delivered by worker worker 1 since 2026-03-01 11:59:00 UTC"),
        (leased(at_work=False), Blocker.IN_BATCH, "its turn comes"),
        (leased(is_over=True), Blocker.WORKER_LOST, "it may have been sent"),
        (leased(is_over=True, at_work=False), Blocker.WORKER_LOST, "before it came to this one"),
        (
            replace(DUE, stored_state=State.SENT, state=ShownState.SENT, finished_at=NOW),
            Blocker.FINISHED,
            "was sent at 2026-03-01 12:00:00 UTC: 4.2.0",
        ),
        (
            replace(DUE, stored_state=State.CANCELLED, state=ShownState.CANCELLED, finished_at=NOW, signed_by=BY_ANN),
            Blocker.FINISHED,
            "was cancelled at 2026-03-01 12:00:00 UTC by ann@home.test: wrong link",
        ),
    ],
)
def test_the_sentence_says_who_since_when_and_why(situation: Situation, blocker: Blocker, said: str) -> None:
    found = of(situation)
    assert blocker is found.blocker
    assert said in found.sentence
    assert found.sentence.startswith("bob@far.test ")
    assert found.next


def test_sessions_that_are_all_taken_are_told_with_their_owners() -> None:
    found = of(replace(DUE, ahead=4), sessions=Sessions(limit=3, owners=("w1", "w1", "w2")))
    assert Blocker.NO_SESSION is found.blocker
    assert "3 of 3 sessions to far.test are taken (w1: 2, w2: 1), behind 4 others" in found.sentence
    assert (3, 3, ["w1", "w2"]) == tuple(
        found.numbers[name] for name in ("sessions_limit", "sessions_taken", "session_owners")
    )


def test_the_tightest_limit_is_named_with_its_numbers_and_who_says_so() -> None:
    shared = Sessions(
        limit=2, owners=("w1", "w2"), key="site:mx.p.test", source="limits.toml:4", numbers={"concurrency_limit": 5}
    )
    found = of(DUE, sessions=shared)
    assert Blocker.NO_SESSION is found.blocker
    assert "2 of 2 sessions to site:mx.p.test are taken (w1: 1, w2: 1); limit: limits.toml:4." in found.sentence
    assert ("site:mx.p.test", "limits.toml:4", 5) == tuple(
        found.numbers[name] for name in ("tightest_limit", "limit_source", "concurrency_limit")
    )


@pytest.mark.parametrize(("opens_in", "until"), [(timedelta(seconds=3), " until 2026-03-01 12:00:03 UTC"), (None, "")])
def test_a_limit_that_is_shut_though_sessions_are_free_is_named_and_when_it_opens(
    opens_in: timedelta | None, until: str
) -> None:
    """Source: smtp-delivery Q-35, Q-40."""
    shut = Sessions(limit=5, owners=(), source="limits.toml:9", shut="account:ses has used up its 14/s of messages")
    found = of(replace(DUE, ahead=2), sessions=replace(shut, opens_in=opens_in))
    assert (Blocker.LIMITED, False) == (found.blocker, found.taken_next)
    assert f"its 14/s of messages{until}; limit: limits.toml:9, behind 2 others." in found.sentence
    assert (None if opens_in is None else NOW + opens_in) == found.next_attempt_at
    lost = of(leased(is_over=True, at_work=False), sessions=shut)
    assert (Blocker.WORKER_LOST, False) == (lost.blocker, lost.taken_next)


@pytest.mark.parametrize(
    "sessions",
    [Sessions(limit=0, owners=("w1",) * 99), Sessions(limit=1, owners=None), Sessions(limit=2, owners=("w",))],
)
def test_sessions_without_limit_or_that_cannot_be_counted_stand_in_nobodys_way(sessions: Sessions) -> None:
    assert Blocker.NOTHING is of(DUE, sessions=sessions).blocker


def test_what_comes_next_follows_the_schedule() -> None:
    found = of(LATER)
    assert (LATER.due_at, HOUR) == (found.next_attempt_at, found.wait_after_that)
    assert NOW - HOUR + timedelta(days=5) == found.expires_at
    assert (
        "Attempt 3 at 2026-03-01 12:10:00 UTC; if that is put off, the next after 1:00:00, "
        "until 2026-03-06 11:00:00 UTC." == found.next
    )
    steps = replace(SCHEDULE, steps=(MINUTE, 2 * MINUTE, 3 * MINUTE))
    assert 3 * MINUTE == of(LATER, schedule=steps).wait_after_that


def test_the_last_attempt_is_called_so() -> None:
    found = of(replace(LATER, expires_at=NOW + MINUTE))
    assert (None, NOW + MINUTE) == (found.wait_after_that, found.expires_at)
    assert "the last one" in found.next


def test_where_nothing_is_given_up_no_end_is_named() -> None:
    """Source: smtp-delivery B-15."""
    found = of(replace(DUE, expires_at=NOW - MINUTE), schedule=replace(SCHEDULE, gives_up=False))
    assert "Attempt 3 now; if that is put off, the next after 1:00:00, for as long as it takes." == found.next
    assert found.expires_at is None


def test_a_warning_is_announced_once() -> None:
    schedule = replace(SCHEDULE, warning=4 * HOUR)
    assert NOW + 3 * HOUR == of(DUE, schedule=schedule).warns_at
    assert of(replace(DUE, warned_at=NOW), schedule=schedule).warns_at is None
    assert of(DUE).warns_at is None


def test_mail_that_waits_for_two_instants_waits_for_the_later_one() -> None:
    until = replace(STOP, until_at=NOW + HOUR)
    assert NOW + HOUR == of(replace(LATER, suspension=until)).next_attempt_at
    assert LATER.due_at == of(replace(LATER, suspension=replace(STOP, until_at=NOW + MINUTE))).next_attempt_at
    assert of(replace(LATER, suspension=STOP)).next_attempt_at is None
    assert NOW + HOUR == of(replace(DUE, suspension=until)).next_attempt_at


def test_a_reason_without_end_is_cut() -> None:
    assert len(of(replace(LATER, last_reason="x" * 9999)).sentence) < 500
