"""Notices of troubled sessions: in the queue, few, and never in the way, on both databases."""

import logging
from datetime import UTC, datetime
from email import message_from_bytes

import pytest

from mailq.envelope import DeliveryRequest, Protocol, Recipient
from mailq.errors import DatabaseUnavailableError
from mailq.queue.postmaster import Postmaster
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.status import Endpoint, RecipientId, Trouble
from mailq.worker.trouble import PERIOD_SECONDS, SERVERS_REMEMBERED, TroubleNotices
from tests.fakes.clock import FakeClock

ME = "mail.home.test"
SERVER = Endpoint("mx.far.test", "192.0.2.1", 25)
TROUBLE = Trouble(SERVER, frozenset({"protocol"}), ("In:  220 mx", "Out: EHLO mail.home.test", "In:  what?"))
FROM_US = Selector(sender=f"double-bounce@{ME}")


def request(sender: str = "ann@home.test", protocol: Protocol = Protocol.SMTP) -> DeliveryRequest:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    return DeliveryRequest(
        queue_id="QUEUEID",
        nexthop="far.test",
        sender=sender,
        recipients=(Recipient(RecipientId(1), "bob@far.test"),),
        size_bytes=10,
        arrived_at=now,
        active_at=now,
        protocol=protocol,
    )


def notices(store: Store, *, clock: FakeClock | None = None) -> TroubleNotices:
    settings = Settings(myhostname=ME, notify_classes=("protocol",), error_notice_recipient="errors@admin.test")
    return TroubleNotices(
        store,
        clock=clock or FakeClock(),
        hostname=ME,
        postmaster=Postmaster.of(settings),
        nexthop_for=lambda address: address.rpartition("@")[2],
    )


def queued(store: Store) -> list[str]:
    return [one.queue_id for one in store.list_recipients(FROM_US, limit=100)]


def another(number: int) -> Trouble:
    return Trouble(Endpoint(f"mx{number}.far.test", "192.0.2.1", 25), TROUBLE.classes, TROUBLE.transcript)


@pytest.mark.parametrize("protocol", Protocol)
def test_a_notice_shows_the_transcript(store: Store, protocol: Protocol) -> None:
    """Source: smtp-delivery T-40."""
    notices(store).tell(request(protocol=protocol), [TROUBLE])
    (queue_id,) = queued(store)
    assert "QUEUEID" == store.show(queue_id).notice_of
    assert ["errors@admin.test"] == [one.address for one in store.show(queue_id).recipients]
    with store.bodies.open(queue_id) as body:
        message = message_from_bytes(body.read())
    assert f"mailq {protocol.name} client: errors from mx.far.test[192.0.2.1]:25" == message["Subject"]
    assert ("errors@admin.test", "auto-generated") == (message["To"], message["Auto-Submitted"])
    text = message.get_payload().replace("\r\n", "\n")
    assert "\n In:  220 mx\n Out: EHLO mail.home.test\n In:  what?\n" in text


@pytest.mark.parametrize("sender", ["", f"double-bounce@{ME}"])
def test_nobody_is_told_of_trouble_with_a_report(store: Store, sender: str) -> None:
    """Source: smtp-delivery C-70: no notice causes another."""
    notices(store).tell(request(sender), [TROUBLE])
    assert [] == queued(store)


def test_nobody_is_told_of_a_class_that_is_not_asked_for(store: Store) -> None:
    notices(store).tell(request(), [Trouble(SERVER, frozenset({"data"}), TROUBLE.transcript)])
    assert [] == queued(store)


def test_a_server_is_told_of_once_a_minute_whoever_meets_it(store: Store) -> None:
    clock = FakeClock()
    workers = [notices(store, clock=clock), notices(store, clock=clock)]
    for worker in workers * 5:
        worker.tell(request(), [TROUBLE, TROUBLE])
    assert 1 == len(queued(store))
    clock.advance(PERIOD_SECONDS)
    for worker in workers:
        worker.tell(request(), [TROUBLE])
    assert 2 == len(queued(store))


def test_each_server_is_told_of(store: Store) -> None:
    notices(store).tell(request(), [another(1), another(2)])
    assert 2 == len(queued(store))


def test_what_is_remembered_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told = notices(store)
    monkeypatch.setattr(store, "insert", lambda messages: [])
    told.tell(request(), [another(number) for number in range(SERVERS_REMEMBERED + 10)])
    assert SERVERS_REMEMBERED == len(told._told)


@pytest.mark.parametrize("error", [DatabaseUnavailableError("down"), ZeroDivisionError("a bug")])
def test_a_notice_that_cannot_be_queued_is_logged_and_nothing_else(
    store: Store, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(messages: object) -> None:
        raise error

    monkeypatch.setattr(store, "insert", fail)
    with caplog.at_level(logging.WARNING, logger="mailq.worker.trouble"):
        notices(store).tell(request(), [TROUBLE])
    assert 1 == len(caplog.records)
    assert "mx.far.test" in caplog.text
