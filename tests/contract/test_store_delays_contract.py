"""Delay reports and the postmaster's copies: each late message is told of once, whoever runs, on both databases."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email import message_from_bytes
from email.message import Message
from email.utils import parsedate_to_datetime

import pytest

from mailq.envelope import Notify
from mailq.errors import AddressSyntaxError
from mailq.queue.messages import NewRecipient
from mailq.queue.reports import ReportRules
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.queue.views import MessageView
from mailq.settings import Settings
from tests.fakes.queue_values import a_message, bounced, deferred, expired, finish, recipients_of, sent, take

HOUR = timedelta(hours=1)
NOW = timedelta(0)
ME = "mail.home.test"
POSTMASTER = f"postmaster@{ME}"
DOUBLE_BOUNCE = f"double-bounce@{ME}"


def rules(*classes: str) -> ReportRules:
    settings = Settings(
        myhostname=ME,
        notify_classes=classes,
        bounce_notice_recipient="bounces@admin.test",
        double_bounce_notice_recipient="doubles@admin.test",
        delay_notice_recipient="delays",
    )
    return ReportRules.of(settings, nexthop_for=lambda address: f"to-{address}")


def defer_all(store: Store, nexthop: str = "far.test", *, late: bool = True) -> None:
    lease = take(store, nexthop)
    finish(store, [deferred(one, late=late) for one in recipients_of(lease)], lease)


def fail_all(store: Store, nexthop: str = "far.test") -> None:
    lease = take(store, nexthop)
    finish(store, [bounced(one) for one in recipients_of(lease)], lease)


def send(store: Store, *classes: str, limit: int = 10, wait: timedelta = HOUR) -> list[MessageView]:
    return [store.show(queue_id) for queue_id in store.send_reports(rules(*classes), limit=limit, wait=wait)]


def envelope(view: MessageView) -> tuple[str, str]:
    (only,) = view.recipients
    return view.sender, only.address


def content(store: Store, view: MessageView) -> Message:
    with store.bodies.open(view.queue_id) as body:
        return message_from_bytes(body.read())


def fields(report: Message) -> list[Message]:
    """Return the groups of status fields: the message's, then one a recipient."""
    groups = report.get_payload(1).get_payload()
    assert isinstance(groups, list)
    return groups


def told_of(store: Store, view: MessageView) -> list[str]:
    return [group["Final-Recipient"] for group in fields(content(store, view))[1:]]


def returned_type(report: Message) -> str:
    return report.get_payload(2).get_content_type()


def test_the_sender_of_a_late_message_is_told_once_however_often_it_is_deferred(store: Store) -> None:
    """Source: smtp-delivery Q-54, B-02, B-26, scenarios 9.18 and 10.09."""
    (queue_id,) = store.insert([a_message("a@far.test")])
    defer_all(store)
    (report,) = send(store)
    assert ("", "ann@home.test", queue_id) == (*envelope(report), report.notice_of)
    _, late = fields(content(store, report))
    assert ("delayed", "4.4.1") == (late["Action"], late["Status"])
    assert late["Will-Retry-Until"]
    assert "text/rfc822-headers" == returned_type(content(store, report))
    defer_all(store)
    assert [] == send(store)


def test_a_delay_report_names_the_end_of_the_messages_own_schedule(store: Store) -> None:
    """Source: smtp-delivery B-22, B-26."""
    settings = Settings(
        myhostname=ME,
        retry_schedules=("urgent=1m 5m expires=2d warn=90m",),
        retry_schedule_for=("class:password=urgent",),
    )
    (plain, _) = store.insert([a_message("a@far.test"), a_message("b@far.test", mail_class="password")])
    defer_all(store)
    schedules = ReportRules.of(settings, nexthop_for=lambda address: f"to-{address}")
    queued = [store.show(one) for one in store.send_reports(schedules, limit=10, wait=HOUR)]
    ends = {}
    for view in queued:
        arrived = store.show(view.notice_of or "").arrived_at
        (late,) = fields(content(store, view))[1:]
        ends[view.notice_of == plain] = parsedate_to_datetime(late["Will-Retry-Until"]) - arrived.replace(microsecond=0)
    assert {True: timedelta(days=5), False: timedelta(days=2)} == ends
    (urgent,) = [view for view in queued if view.notice_of != plain]
    text = " ".join(content(store, urgent).get_payload(0).get_payload().split())
    assert "for 1.5 hours. It is tried for 2 days in all" in text


def test_a_deferral_that_is_not_late_yet_tells_nobody(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    defer_all(store, late=False)
    assert [] == send(store)


def test_a_delay_report_tells_of_those_still_deferred_and_of_nobody_else(store: Store) -> None:
    """Source: smtp-delivery B-30."""
    store.insert([a_message("a@far.test", "b@far.test", "c@far.test", "d@near.test")])
    lease = take(store)
    one, two, three = recipients_of(lease)
    finish(store, [sent(one), deferred(two, late=True), bounced(three)], lease)
    failure, delay = send(store, wait=NOW)
    assert ["rfc822; c@far.test"] == told_of(store, failure)
    assert ["rfc822; b@far.test"] == told_of(store, delay)


def test_a_delay_report_waits_for_the_attempt_at_the_other_recipients(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@near.test")])
    defer_all(store)
    assert [] == send(store)
    lease = take(store, "near.test")
    assert [] == send(store)
    finish(store, [deferred(one, late=True) for one in recipients_of(lease)], lease)
    (report,) = send(store)
    assert ["rfc822; a@far.test", "rfc822; b@near.test"] == told_of(store, report)


@pytest.mark.parametrize("end", [sent, bounced, expired])
def test_who_is_settled_before_the_report_is_not_told_of(store: Store, end) -> None:
    """Source: smtp-delivery Q-53, Q-54: expiry goes first."""
    store.insert([a_message("a@far.test")])
    defer_all(store)
    lease = take(store)
    finish(store, [end(one) for one in recipients_of(lease)], lease)
    kinds = [content(store, report)["Subject"] for report in send(store)]
    assert [] == [kind for kind in kinds if "Delayed" in kind]
    assert [] == send(store)


def test_what_is_held_meanwhile_is_not_told_of(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    defer_all(store)
    store.hold(Selector())
    assert [] == send(store)


@pytest.mark.parametrize(
    ("notify", "reported"),
    [
        (frozenset(), True),
        (frozenset({Notify.DELAY}), True),
        (frozenset({Notify.FAILURE, Notify.DELAY}), True),
        (frozenset({Notify.NEVER}), False),
        (frozenset({Notify.FAILURE, Notify.SUCCESS}), False),
    ],
)
def test_a_delay_is_told_of_as_notify_says(store: Store, notify: frozenset[Notify], reported: bool) -> None:  # noqa: FBT001 - a table's column
    """Source: smtp-delivery B-02, B-13, B-31."""
    recipient = NewRecipient(address="a@far.test", nexthop="far.test", notify=notify)
    store.insert([a_message(recipients=(recipient,))])
    defer_all(store)
    assert reported == bool(send(store))
    assert [] == send(store)


def test_dispatchers_at_once_tell_of_each_late_message_once(store: Store) -> None:
    store.insert([a_message("a@far.test") for _ in range(20)])
    defer_all(store)
    barrier = threading.Barrier(4, timeout=30)

    def one(_number: int) -> list[MessageView]:
        barrier.wait()
        return send(store, limit=100)

    with ThreadPoolExecutor(4) as pool:
        reported = [view.notice_of for mine in pool.map(one, range(4), timeout=60) for view in mine]
    assert (20, 20) == (len(reported), len(set(reported)))


def test_workers_at_once_note_the_same_late_messages_without_blocking_each_other(store: Store) -> None:
    """Two nexthops of the same messages, leased in opposite orders."""
    store.insert([a_message("a@far.test", "b@near.test") for _ in range(20)])
    leases = [take(store, "far.test"), take(store, "near.test")]
    barrier = threading.Barrier(2, timeout=30)

    def record(number: int) -> None:
        results = [deferred(one, late=True) for one in recipients_of(leases[number])]
        barrier.wait()
        store.record(leases[number].id, results[:: (-1) ** number])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, range(2), timeout=60))
    assert 20 == len(send(store, limit=100))


def test_a_late_message_can_be_purged_once_it_has_ended(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    defer_all(store)
    send(store)
    lease = take(store)
    finish(store, [sent(one) for one in recipients_of(lease)], lease)
    assert 1 == store.purge(older_than=-HOUR, limit=10)


def test_with_class_delay_the_postmaster_gets_a_copy(store: Store) -> None:
    """Source: smtp-delivery B-06, B-12."""
    quiet = NewRecipient(address="q@far.test", nexthop="far.test", notify=frozenset({Notify.NEVER}))
    store.insert([a_message(recipients=(quiet, NewRecipient(address="a@far.test", nexthop="far.test")))])
    defer_all(store)
    report, copy = send(store, "delay")
    assert [("", "ann@home.test"), (DOUBLE_BOUNCE, f"delays@{ME}")] == [envelope(report), envelope(copy)]
    assert ["rfc822; a@far.test"] == told_of(store, report)
    assert ["rfc822; q@far.test", "rfc822; a@far.test"] == told_of(store, copy)
    assert "text/rfc822-headers" == returned_type(content(store, copy))


def test_with_class_bounce_the_postmaster_gets_a_copy_of_headers(store: Store) -> None:
    """Source: smtp-delivery B-04, B-12, scenario 10.12."""
    store.insert([a_message("a@far.test")])
    fail_all(store)
    report, copy = send(store, "bounce")
    assert [("", "ann@home.test"), (DOUBLE_BOUNCE, "bounces@admin.test")] == [envelope(report), envelope(copy)]
    assert ["message/rfc822", "text/rfc822-headers"] == [returned_type(content(store, one)) for one in (report, copy)]


def test_the_postmaster_gets_a_copy_even_where_the_sender_wants_no_report(store: Store) -> None:
    """Source: smtp-delivery B-04, B-13."""
    quiet = NewRecipient(address="q@far.test", nexthop="far.test", notify=frozenset({Notify.NEVER}))
    store.insert([a_message(recipients=(quiet,))])
    fail_all(store)
    (copy,) = send(store, "bounce")
    assert (DOUBLE_BOUNCE, "bounces@admin.test") == envelope(copy)
    assert [] == send(store, "bounce")


def test_a_copy_that_cannot_be_routed_keeps_no_sender_from_being_told(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Source: smtp-delivery B-12."""

    def nexthop_for(address: str) -> str:
        if address == POSTMASTER:
            raise AddressSyntaxError("no such place")
        return "home.test"

    store.insert([a_message("a@far.test"), a_message("b@far.test")])
    settings = Settings(myhostname=ME, notify_classes=("bounce", "delay"))
    lease = take(store)
    one, two = recipients_of(lease)
    finish(store, [bounced(one), deferred(two, late=True)], lease)
    with caplog.at_level(logging.WARNING, logger="mailq.queue.reports"):
        queued = store.send_reports(ReportRules.of(settings, nexthop_for=nexthop_for), limit=10, wait=HOUR)
    assert [("", "ann@home.test")] * 2 == [envelope(store.show(queue_id)) for queue_id in queued]
    assert 2 == len(caplog.records)


@pytest.mark.parametrize(("classes", "told"), [(("bounce",), True), (("2bounce",), True), (("resource",), False)])
def test_mail_of_the_null_sender_that_fails_is_the_postmasters_by_class(
    store: Store, classes: tuple[str, ...], *, told: bool
) -> None:
    """Source: smtp-delivery B-05, B-10, scenarios 10.05 and 10.06."""
    (queue_id,) = store.insert([a_message("a@far.test", sender="")])
    fail_all(store)
    notices = send(store, *classes)
    assert ([(DOUBLE_BOUNCE, "doubles@admin.test")] if told else []) == [envelope(one) for one in notices]
    assert [queue_id] * told == [one.notice_of for one in notices]
    for notice in notices:
        text = content(store, notice)
        assert "message/rfc822" == returned_type(text)
        assert "rfc822; MAILER-DAEMON" == fields(text)[0]["X-Mailq-Sender"]
        assert "Postmaster Copy: Undelivered Mail" == text["Subject"]
    assert [] == send(store, *classes)


def test_a_notice_to_the_postmaster_that_fails_causes_no_other(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Source: smtp-delivery B-11, scenario 10.16."""
    store.insert([a_message("a@far.test", sender="")])
    fail_all(store)
    (notice,) = send(store, "bounce", "2bounce", "delay")
    fail_all(store, "to-doubles@admin.test")
    with caplog.at_level(logging.WARNING, logger="mailq.queue.reports"):
        assert [] == send(store, "bounce", "2bounce", "delay")
    assert [notice.queue_id] == [record.args[0] for record in caplog.records if record.args]
    assert [] == store.due_reports(limit=10, wait=HOUR)
