"""What the store does as a queue manager does it, on both databases: taking up what is due, and telling the latest."""

from dataclasses import replace
from datetime import timedelta

from mailq.queue.messages import Lease
from mailq.queue.reports import ReportRules
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.status import Deferred, Reply
from tests.fakes.poll import eventually
from tests.fakes.queue_values import (
    MINUTE,
    a_message,
    bounced,
    deferred,
    expired,
    finish,
    recipients_of,
    sent,
    take,
    transient,
)

HOUR = timedelta(hours=1)
RULES = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda address: f"to-{address}")


def put_off(store: Store, said: str) -> None:
    """Try what is due for far.test; the server puts it off with these words."""
    lease = take(store)
    outcome = Deferred(transient(Reply(450, (said,))))
    finish(store, [replace(deferred(one), outcome=outcome) for one in recipients_of(lease)], lease)


def reported(store: Store, *, wait: timedelta = HOUR) -> list[str]:
    """Queue the reports that are due; return the text of each."""
    found = []
    for report_id in store.send_reports(RULES, limit=10, wait=wait):
        with store.bodies.open(report_id) as body:
            found.append(body.read().decode())
    return found


def test_nothing_is_taken_before_its_time_and_everything_once_it_has_come(store: Store) -> None:
    """Source: smtp-delivery Q-03."""
    (queue_id,) = store.insert([a_message("bob@far.test")])
    lease = take(store)
    finish(store, [deferred(one, wait=timedelta(seconds=0.3)) for one in recipients_of(lease)], lease)
    due_at = store.show(queue_id).recipients[0].due_at
    taken: list[Lease] = []

    def is_taken() -> bool:
        found = store.claim("far.test", owner="w", limit=1, lease_time=MINUTE)
        taken.extend([found] if found else [])
        return bool(taken)

    assert eventually(is_taken)
    assert due_at is not None
    assert due_at <= taken[0].taken_at


def test_a_report_of_what_expired_tells_the_last_round_and_no_earlier_one(store: Store) -> None:
    """Source: smtp-delivery Q-53, Q-57."""
    store.insert([a_message("bob@far.test")])
    put_off(store, "450 4.2.0 first words")
    put_off(store, "450 4.2.0 second words")
    lease = take(store)
    last = Deferred(transient(Reply(450, ("450 4.2.0 last words",))))
    results = [replace(expired(one), outcome=last) for one in recipients_of(lease)]
    finish(store, results, lease)
    (report,) = reported(store)
    said = [words for words in ("first words", "second words", "last words") if words in report]
    assert ["last words"] == said


def test_a_failure_is_kept_through_later_rounds_until_it_is_told_of(store: Store) -> None:
    """Source: smtp-delivery Q-50, Q-51, Q-57."""
    store.insert([a_message("a@far.test", "b@far.test", "c@far.test")])
    lease = take(store, limit=1)
    finish(store, [bounced(one) for one in recipients_of(lease)], lease)
    assert [] == reported(store)
    lease = take(store, limit=1)
    finish(store, [deferred(one) for one in recipients_of(lease)], lease)
    assert [] == reported(store)
    lease = take(store)
    two = recipients_of(lease)
    assert 2 == len(two)
    finish(store, [deferred(two[0], wait=HOUR), sent(two[1])], lease)
    (report,) = reported(store)
    assert (1, 1) == (report.count("Final-Recipient: "), report.count("Final-Recipient: rfc822; a@far.test"))
    assert [] == reported(store, wait=timedelta(0))


def test_recipients_of_a_message_are_taken_in_the_order_in_which_they_were_given(store: Store) -> None:
    """Source: smtp-delivery Q-05, Q-14."""
    names = ["m", "a", "z", "c", "b"]
    store.insert([a_message(*(f"{name}@far.test" for name in names))])
    first = take(store, limit=3)
    second = take(store, limit=3)
    leased = [[one.address[0] for each in lease.requests for one in each.recipients] for lease in (first, second)]
    assert [["m", "a", "z"], ["c", "b"]] == leased
    assert [True, False] == [lease.full for lease in (first, second)]
