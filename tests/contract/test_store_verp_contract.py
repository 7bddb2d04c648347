"""Envelope senders by recipient: stored plain, told of one by one, on both databases."""

from collections import Counter
from datetime import timedelta
from email import message_from_bytes
from email.message import Message

import pytest

from mailq.envelope import Notify
from mailq.queue import notices
from mailq.queue.messages import NewRecipient
from mailq.queue.reports import ReportRules
from mailq.queue.store import Store
from mailq.queue.views import MessageView
from mailq.settings import Settings
from tests.fakes.queue_values import a_message, bounced, deferred, finish, recipients_of, sent, take

HOUR = timedelta(hours=1)
ME = "mail.home.test"


def send(store: Store, *classes: str, **fields: object) -> list[MessageView]:
    settings = Settings(myhostname=ME, notify_classes=classes, **fields)
    rules = ReportRules.of(settings, nexthop_for=lambda address: f"to-{address}")
    return [store.show(queue_id) for queue_id in store.send_reports(rules, limit=10, wait=HOUR)]


def fail_all(store: Store) -> None:
    lease = take(store, limit=1000)
    finish(store, [bounced(one) for one in recipients_of(lease)], lease)


def addressees(reports: list[MessageView]) -> list[str]:
    return [one.recipients[0].address for one in reports]


def content(store: Store, view: MessageView) -> Message:
    with store.bodies.open(view.queue_id) as body:
        return message_from_bytes(body.read())


def test_the_plain_sender_is_what_is_stored(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", verp="+=")])
    (request,) = take(store).requests
    assert ("ann@home.test", "+=", "ann@home.test") == (request.sender, request.verp, store.show(queue_id).sender)
    assert "+=" == store.show(queue_id).verp


def test_each_recipient_has_a_report_that_names_it_by_its_address(store: Store) -> None:
    """Source: smtp-delivery B-17, B-42, scenario 10.14."""
    store.insert([a_message("a@far.test", "b@far.test", verp="+=")])
    fail_all(store)
    reports = send(store)
    assert ["ann+a=far.test@home.test", "ann+b=far.test@home.test"] == addressees(reports)
    assert [{"to-ann+a=far.test@home.test"}, {"to-ann+b=far.test@home.test"}] == [
        {each.nexthop for each in one.recipients} for one in reports
    ]
    for report, name in zip(reports, ["a@far.test", "b@far.test"], strict=True):
        about, only = content(store, report).get_payload(1).get_payload()
        assert (f"rfc822; {name}", "rfc822; ann@home.test") == (only["Final-Recipient"], about["X-Mailq-Sender"])
    assert [] == send(store)


def test_who_wants_no_report_gets_none_by_any_address(store: Store) -> None:
    quiet = NewRecipient(address="q@far.test", nexthop="far.test", notify=frozenset({Notify.NEVER}))
    store.insert([a_message(recipients=(quiet,), verp="+=")])
    fail_all(store)
    assert [] == send(store)


def test_one_ordinary_report_is_sent_where_that_is_preferred(store: Store) -> None:
    """Source: smtp-delivery B-42; postconf(5) disable_verp_bounces."""
    store.insert([a_message("a@far.test", "b@far.test", verp="+=")])
    fail_all(store)
    assert ["ann@home.test"] == addressees(send(store, disable_verp_bounces=True))


@pytest.mark.parametrize("end", [deferred, sent])
def test_delay_and_success_are_told_the_plain_sender(store: Store, end) -> None:
    """Source: smtp-delivery B-42."""
    wishes = frozenset({Notify.SUCCESS, Notify.DELAY})
    both = tuple(NewRecipient(address=f"{one}@far.test", nexthop="far.test", notify=wishes) for one in "ab")
    store.insert([a_message(recipients=both, verp="+=")])
    lease = take(store)
    late = {"late": True} if end is deferred else {}
    finish(store, [end(one, **late) for one in recipients_of(lease)], lease)
    assert ["ann@home.test"] == addressees(send(store))


def test_the_null_sender_has_no_other_name(store: Store) -> None:
    """Source: smtp-delivery B-41."""
    store.insert([a_message("a@far.test", sender="", verp="+=")])
    fail_all(store)
    assert [f"postmaster@{ME}"] == addressees(send(store, "2bounce"))


def test_very_many_reports_are_made_a_few_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MOST_REPORTS", 4)
    names = [f"r{number}@far.test" for number in range(9)]
    store.insert([a_message(*names, verp="+=")])
    fail_all(store)
    rounds = [addressees(send(store)) for _ in range(4)]
    assert [4, 4, 1, 0] == [len(one) for one in rounds]
    told = Counter(address for one in rounds for address in one)
    assert {f"ann+{name.replace('@', '=')}@home.test": 1 for name in names} == told


def test_reports_that_return_much_are_fewer_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MOST_RETURNED_BYTES", 2500)
    store.insert(
        [a_message("a@far.test", "b@far.test", "c@far.test", verp="+=", content=b"From: a@b\r\n\r\n" + b"x" * 985)]
    )
    fail_all(store)
    assert [2, 1, 0] == [len(send(store)) for _ in range(3)]
