"""Failure reports: each failed recipient is told of once, whoever runs, on both databases."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email import message_from_bytes
from email.message import Message

import pytest

from mailq.envelope import Notify, Ret
from mailq.errors import ConfigError
from mailq.queue.messages import NewRecipient
from mailq.queue.reports import ReportRules
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.settings import Settings
from tests.fakes.queue_values import a_message, bounced, deferred, expired, finish, recipients_of, sent, take

HOUR = timedelta(hours=1)
RULES = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda address: f"to-{address}")
FROM_NULL = Selector(sender="")


def fail_all(store: Store, nexthop: str = "far.test") -> None:
    lease = take(store, nexthop)
    finish(store, [bounced(one) for one in recipients_of(lease)], lease)


def send(store: Store, *, limit: int = 10, wait: timedelta = HOUR) -> list[str]:
    return store.send_reports(RULES, limit=limit, wait=wait)


def content(store: Store, queue_id: str) -> Message:
    with store.bodies.open(queue_id) as body:
        return message_from_bytes(body.read())


def fields(report: Message) -> Sequence[Message]:
    """Return the groups of status fields: the message's, then one a recipient."""
    parts = report.get_payload()
    assert isinstance(parts, list)
    groups = parts[1].get_payload()
    assert isinstance(groups, list)
    return groups


def test_a_sender_gets_one_report_about_all_failed_recipients(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", "b@far.test", "c@far.test")])
    lease = take(store)
    one, two, three = recipients_of(lease)
    finish(store, [sent(one), bounced(two), expired(three)], lease)
    (report_id,) = send(store)

    report = store.show(report_id)
    assert ("", queue_id) == (report.sender, report.notice_of)
    assert [("ann@home.test", "to-ann@home.test")] == [(each.address, each.nexthop) for each in report.recipients]
    about, refused, silent = fields(content(store, report_id))
    assert queue_id == about["X-Mailq-Queue-ID"]
    assert ("rfc822; b@far.test", "5.1.1", "dns; mx.far.test", "smtp; 550 5.1.1 no such user") == (
        refused["Final-Recipient"],
        refused["Status"],
        refused["Remote-MTA"],
        refused["Diagnostic-Code"],
    )
    assert ("rfc822; c@far.test", "4.4.1", None) == (
        silent["Final-Recipient"],
        silent["Status"],
        silent["Remote-MTA"],
    )
    assert "X-Mailq; connect to mx.far.test" in silent["Diagnostic-Code"]


def test_a_report_is_sent_once(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    fail_all(store)
    assert [1, 0] == [len(send(store)), len(send(store))]


def test_a_report_is_delivered_like_any_mail(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    fail_all(store)
    (report_id,) = send(store)
    assert 1 == store.notice_new(limit=10)
    assert [report_id] == [one.queue_id for one in take(store, "to-ann@home.test").requests]


def test_a_report_that_cannot_be_delivered_is_not_reported(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    fail_all(store)
    send(store)
    fail_all(store, "to-ann@home.test")
    assert [] == send(store)
    assert [] == store.due_reports(limit=10, wait=HOUR)


def test_mail_from_the_null_sender_is_not_reported(store: Store) -> None:
    store.insert([a_message("a@far.test", sender="")])
    fail_all(store)
    assert [] == send(store)
    assert [] == store.due_reports(limit=10, wait=HOUR)


@pytest.mark.parametrize(
    ("notify", "reported"),
    [
        (frozenset(), True),
        (frozenset({Notify.FAILURE}), True),
        (frozenset({Notify.FAILURE, Notify.DELAY, Notify.SUCCESS}), True),
        (frozenset({Notify.NEVER}), False),
        (frozenset({Notify.SUCCESS, Notify.DELAY}), False),
    ],
)
def test_a_recipient_is_reported_as_its_notify_says(store: Store, notify: frozenset[Notify], reported: bool) -> None:  # noqa: FBT001 - a table's column
    recipient = NewRecipient(address="a@far.test", nexthop="far.test", notify=notify)
    store.insert([a_message("b@far.test", recipients=(recipient,))])
    fail_all(store)
    assert reported == bool(send(store))
    assert [] == store.due_reports(limit=10, wait=HOUR)


def test_a_recipient_that_wants_no_report_is_left_out_of_it(store: Store) -> None:
    quiet = NewRecipient(address="quiet@far.test", nexthop="far.test", notify=frozenset({Notify.NEVER}))
    loud = NewRecipient(address="loud@far.test", nexthop="far.test")
    store.insert([a_message("b@far.test", recipients=(quiet, loud))])
    fail_all(store)
    (report_id,) = send(store)
    _, only = fields(content(store, report_id))
    assert "rfc822; loud@far.test" == only["Final-Recipient"]


def test_a_report_waits_for_the_first_attempt_at_the_other_recipients(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@near.test")])
    fail_all(store)
    assert [] == send(store)
    lease = take(store, "near.test")
    assert [] == send(store)
    finish(store, [deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    assert 1 == len(send(store))


def test_a_report_does_not_wait_for_ever(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@near.test")])
    fail_all(store)
    assert 1 == len(send(store, wait=timedelta(0)))


def test_a_report_does_not_wait_for_held_mail(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@near.test")])
    store.hold(Selector(recipient="b@near.test"))
    fail_all(store)
    assert 1 == len(send(store))


def test_a_later_failure_of_the_same_message_gets_a_report_of_its_own(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@near.test")])
    fail_all(store)
    send(store, wait=timedelta(0))
    fail_all(store, "near.test")
    (report_id,) = send(store)
    _, only = fields(content(store, report_id))
    assert "rfc822; b@near.test" == only["Final-Recipient"]


def test_no_more_reports_are_made_than_asked_for(store: Store) -> None:
    store.insert([a_message("a@far.test") for _ in range(5)])
    fail_all(store)
    assert [2, 2, 1, 0] == [len(send(store, limit=2)) for _ in range(4)]


def test_the_senders_wish_for_headers_only_is_kept(store: Store) -> None:
    store.insert([a_message("a@far.test", ret=Ret.HDRS)])
    fail_all(store)
    (report_id,) = send(store)
    text = content(store, report_id).as_string()
    assert "Subject: hello" in text
    assert "Good morning" not in text


def test_dispatchers_at_once_report_each_message_once(store: Store) -> None:
    store.insert([a_message("a@far.test") for _ in range(30)])
    fail_all(store)
    barrier = threading.Barrier(4, timeout=30)

    def one(_number: int) -> list[str]:
        barrier.wait()
        return send(store, limit=100)

    with ThreadPoolExecutor(4) as pool:
        queued = [report_id for mine in pool.map(one, range(4), timeout=60) for report_id in mine]
    reported = [store.show(report_id).notice_of for report_id in queued]
    assert (30, 30) == (len(reported), len(set(reported)))
    assert 30 == len(store.list_recipients(FROM_NULL, limit=100))


def test_a_report_that_cannot_be_made_keeps_no_other_back_and_is_tried_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def nexthop_for(address: str) -> str:
        if address == "bad@home.test":
            raise ConfigError("no route")
        return "home.test"

    rules = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=nexthop_for)
    bad, _ = store.insert([a_message("a@far.test", sender="bad@home.test"), a_message("b@far.test")])
    fail_all(store)
    with caplog.at_level(logging.ERROR, logger="mailq.queue.notices"):
        assert 1 == len(store.send_reports(rules, limit=10, wait=HOUR))
    assert [bad] == [record.args[0] for record in caplog.records if record.args]
    assert [bad] == store.due_reports(limit=10, wait=HOUR)
    assert 1 == len(send(store))


def test_a_report_on_a_message_that_requires_tls_requires_it_and_returns_the_header_alone(store: Store) -> None:
    """Source: RFC 8689 §5."""
    store.insert([a_message("a@far.test", require_tls=True, ret=Ret.FULL)])
    fail_all(store)
    (report_id,) = send(store)
    assert store.show(report_id).require_tls
    parts = content(store, report_id).get_payload()
    assert isinstance(parts, list)
    assert "text/rfc822-headers" == parts[2].get_content_type()
