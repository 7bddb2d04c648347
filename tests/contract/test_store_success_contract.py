"""Success reports: who asked is told once of what arrived, on both databases."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.message import Message

import pytest

from mailq.envelope import Notify
from mailq.queue.messages import Lease, NewRecipient, RecipientResult
from mailq.queue.reports import ReportRules
from mailq.queue.store import Store
from mailq.queue.views import MessageView
from mailq.settings import Settings
from tests.fakes.queue_values import a_message, bounced, deferred, finish, recipients_of, sent, take, uncertain

HOUR = timedelta(hours=1)
ME = "mail.home.test"
SUCCESS = frozenset({Notify.SUCCESS})
ASKED = frozenset({Notify.SUCCESS, Notify.FAILURE})


def rules(*classes: str, **fields: object) -> ReportRules:
    settings = Settings(
        myhostname=ME, notify_classes=classes, double_bounce_notice_recipient="doubles@admin.test", **fields
    )
    return ReportRules.of(settings, nexthop_for=lambda address: f"to-{address}")


def to(*addresses: str, notify: frozenset[Notify] = SUCCESS) -> tuple[NewRecipient, ...]:
    return tuple(NewRecipient(address=one, nexthop=one.rpartition("@")[2], notify=notify) for one in addresses)


def send(store: Store, *classes: str, wait: timedelta = HOUR, **fields: object) -> list[MessageView]:
    queued = store.send_reports(rules(*classes, **fields), limit=10, wait=wait)
    return [store.show(queue_id) for queue_id in queued]


def deliver(store: Store, nexthop: str = "far.test", *, passed_on: bool = False, final: bool = False) -> None:
    lease = take(store, nexthop)
    finish(store, [taken(one, passed_on=passed_on, final=final) for one in recipients_of(lease)], lease)


def taken(recipient_id, *, passed_on: bool = False, final: bool = False, confirm: bool = False) -> RecipientResult:
    result = sent(recipient_id)
    outcome = replace(result.outcome, dsn_passed_on=passed_on, final=final)
    return replace(result, outcome=outcome, confirm_delay=confirm)


def told(store: Store, view: MessageView) -> Sequence[tuple[str, str, str]]:
    """Return recipient, action and status of each group of a report."""
    groups = content(store, view).get_payload(1).get_payload()
    assert isinstance(groups, list)
    return [(group["Final-Recipient"], group["Action"], group["Status"]) for group in groups[1:]]


def content(store: Store, view: MessageView) -> Message:
    with store.bodies.open(view.queue_id) as body:
        return message_from_bytes(body.read())


def test_who_asked_is_told_of_all_that_was_relayed_in_one_report(store: Store) -> None:
    """Source: smtp-delivery Q-52, B-03, B-17, B-32, scenario 10.10."""
    (queue_id,) = store.insert([a_message(recipients=to("a@far.test", "b@far.test"))])
    deliver(store)
    (report,) = send(store)
    assert ("", "ann@home.test", queue_id) == (report.sender, report.recipients[0].address, report.notice_of)
    assert [("rfc822; a@far.test", "relayed", "2.0.0"), ("rfc822; b@far.test", "relayed", "2.0.0")] == told(
        store, report
    )
    text = " ".join(content(store, report).get_payload(0).get_payload().split())
    assert "<a@far.test>: delivery via mx.far.test[127.0.0.9]:25: 250 2.0.0 queued as 42" in text
    assert "text/rfc822-headers" == content(store, report).get_payload(2).get_content_type()
    assert [] == send(store)


def test_what_is_in_the_mailbox_was_delivered(store: Store) -> None:
    """Source: smtp-delivery B-27; postconf(5) lmtp_assume_final."""
    store.insert([a_message(recipients=to("a@far.test"))])
    deliver(store, final=True)
    (report,) = send(store)
    assert [("rfc822; a@far.test", "delivered", "2.0.0")] == told(store, report)


@pytest.mark.parametrize(
    ("notify", "reported"),
    [
        (SUCCESS, True),
        (ASKED, True),
        (frozenset(), False),
        (frozenset({Notify.NEVER}), False),
        (frozenset({Notify.FAILURE, Notify.DELAY}), False),
    ],
)
def test_success_is_told_of_only_where_it_was_asked_for(
    store: Store, notify: frozenset[Notify], *, reported: bool
) -> None:
    """Source: smtp-delivery B-31."""
    store.insert([a_message(recipients=to("a@far.test", notify=notify))])
    deliver(store)
    assert reported == bool(send(store))
    assert [] == store.due_reports(limit=10, wait=HOUR)


def test_a_server_that_promised_to_tell_is_left_to_do_so(store: Store) -> None:
    """Source: smtp-delivery B-32, scenario 10.11."""
    store.insert([a_message(recipients=to("a@far.test"))])
    deliver(store, passed_on=True)
    assert [] == send(store)


def test_what_was_taken_for_sent_is_not_called_a_success(store: Store) -> None:
    """Source: RFC 3461 §5.2.1."""
    from mailq.queue.backoff import Done  # noqa: PLC0415 - for this ruling alone

    store.insert([a_message(recipients=to("a@far.test"))])
    lease = take(store)
    finish(store, [uncertain(one, Done()) for one in recipients_of(lease)], lease)
    assert [] == send(store)


def test_success_waits_for_the_first_attempt_at_the_others_and_not_for_ever(store: Store) -> None:
    """Source: smtp-delivery Q-51, Q-52."""
    store.insert([a_message(recipients=to("a@far.test", "b@near.test"))])
    deliver(store)
    assert [] == send(store)
    (first,) = send(store, wait=timedelta(0))
    deliver(store, "near.test")
    (second,) = send(store)
    assert ["rfc822; a@far.test", "rfc822; b@near.test"] == [told(store, one)[0][0] for one in (first, second)]


def test_rounds_of_one_message_are_told_of_in_one_report(store: Store) -> None:
    store.insert([a_message(recipients=to(*(f"r{number}@far.test" for number in range(6))))])
    for _ in range(3):
        lease = take(store, limit=2)
        finish(store, [taken(one) for one in recipients_of(lease)], lease)
    (report,) = send(store)
    assert 6 == len(told(store, report))


def test_failure_and_success_of_one_message_are_two_reports(store: Store) -> None:
    """Source: smtp-delivery Q-50, Q-52, B-01, B-03."""
    store.insert([a_message(recipients=to("a@far.test", "b@far.test", notify=ASKED))])
    lease = take(store)
    one, two = recipients_of(lease)
    finish(store, [taken(one), bounced(two)], lease)
    failure, success = send(store)
    assert [("rfc822; b@far.test", "failed", "5.1.1")] == told(store, failure)
    assert [("rfc822; a@far.test", "relayed", "2.0.0")] == told(store, success)


@pytest.mark.parametrize(("classes", "expected"), [(("2bounce",), 1), (("bounce",), 0), ((), 0)])
def test_success_of_the_null_senders_mail_is_the_postmasters_by_class(
    store: Store, classes: tuple[str, ...], expected: int
) -> None:
    """Source: smtp-delivery B-18."""
    store.insert([a_message(sender="", recipients=to("a@far.test"))])
    deliver(store)
    reports = send(store, *classes)
    assert [(f"double-bounce@{ME}", "doubles@admin.test")] * expected == [
        (one.sender, one.recipients[0].address) for one in reports
    ]
    assert [] == store.due_reports(limit=10, wait=HOUR)


def test_success_of_mail_from_the_double_bounce_address_is_told_nobody(store: Store) -> None:
    """Source: smtp-delivery B-18."""
    store.insert([a_message(sender=f"double-bounce@{ME}", recipients=to("a@far.test"))])
    deliver(store)
    assert [] == send(store, "bounce", "2bounce", "delay")


def delayed(store: Store) -> Lease:
    """Have the sender told that a message is late; return the lease on it."""
    lease = take(store)
    finish(store, [deferred(one, late=True) for one in recipients_of(lease)], lease)
    send(store)
    return take(store)


@pytest.mark.parametrize(
    ("notify", "confirm", "reported"),
    [
        (frozenset(), True, True),
        (frozenset({Notify.DELAY}), True, True),
        (frozenset({Notify.FAILURE}), True, False),
        (frozenset(), False, False),
    ],
)
def test_who_was_told_of_a_delay_may_be_told_of_its_end(
    store: Store, notify: frozenset[Notify], *, confirm: bool, reported: bool
) -> None:
    """Source: smtp-delivery Q-58."""
    store.insert([a_message(recipients=to("a@far.test", notify=notify))])
    lease = delayed(store)
    finish(store, [taken(one, confirm=confirm, passed_on=True) for one in recipients_of(lease)], lease)
    assert [[("rfc822; a@far.test", "relayed", "2.0.0")]] * reported == [told(store, one) for one in send(store)]


def test_who_was_not_told_of_a_delay_is_not_told_of_its_end(store: Store) -> None:
    """Source: smtp-delivery Q-58."""
    store.insert([a_message("a@far.test")])
    lease = take(store)
    finish(store, [taken(one, confirm=True) for one in recipients_of(lease)], lease)
    assert [] == send(store)


def test_with_soft_bounce_failures_wait_and_successes_are_told_of(store: Store) -> None:
    """Source: smtp-delivery B-15."""
    store.insert([a_message(recipients=to("a@far.test", "b@far.test", notify=ASKED))])
    lease = take(store)
    one, two = recipients_of(lease)
    finish(store, [taken(one), bounced(two)], lease)
    (success,) = send(store, soft_bounce=True)
    assert ["relayed"] == [action for _, action, _ in told(store, success)]
    assert [] == send(store, soft_bounce=True)
    (failure,) = send(store)
    assert ["failed"] == [action for _, action, _ in told(store, failure)]


def test_a_message_is_kept_until_its_success_is_told_of(store: Store) -> None:
    store.insert([a_message(recipients=to("a@far.test"))])
    deliver(store)
    assert 0 == store.purge(older_than=-HOUR, limit=10)
    (report,) = send(store)
    assert 1 == store.purge(older_than=-HOUR, limit=10)
    assert report.queue_id == store.show(report.queue_id).queue_id


def test_the_wish_for_no_tls_is_that_of_the_report_too(store: Store) -> None:
    """Source: smtp-delivery B-20; RFC 8689 §3."""
    store.insert([a_message(recipients=to("a@far.test"), tls_optional=True)])
    deliver(store)
    (report,) = send(store)
    assert (True, False, "No") == (report.tls_optional, report.require_tls, content(store, report)["TLS-Required"])
