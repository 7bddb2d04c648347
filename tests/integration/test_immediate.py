"""Delivery in the foreground, for an application's tests: outcomes, reports, transactions."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy

from mailq import Queue, Settings
from mailq.queue.states import ShownState
from mailq.testing.immediate import immediate
from mailq.testing.smtp_scripts import Script, rejecting

_MAIL: dict[str, Any] = {"sender": "shop@example.org", "to": ["ann@x.org"], "subject": "Welcome", "text": "Hello"}


@pytest.fixture
def queue(store_url: str) -> Iterator[Queue]:
    made = Queue(store_url, settings=Settings(myhostname="shop.test"))
    yield made
    made.close()


def test_sent_bounced_and_deferred_are_known_when_send_returns(queue: Queue) -> None:
    script = Script(rcpt=lambda address: {"b@x.org": "550 5.1.1 no", "c@x.org": "450 4.2.1 later"}.get(address, ""))
    with immediate(script) as sink:
        queue_id = queue.send(**_MAIL | {"to": ["a@x.org", "b@x.org", "c@x.org"]})
        states = queue.status(queue_id)

    assert [ShownState.SENT, ShownState.BOUNCED, ShownState.DEFERRED] == list(states.values())
    assert [("shop@example.org", ("a@x.org",)), ("", ("shop@example.org",))] == [
        (one.sender, one.recipients) for one in sink.deliveries
    ]


def test_nothing_is_delivered_before_the_commit(queue: Queue) -> None:
    engine = sqlalchemy.create_engine(queue.store.engine.url)
    with immediate() as sink:
        queue.counts()
        with engine.connect() as connection:
            queue.send(**_MAIL, connection=connection)
            connection.rollback()
            queue.send(**_MAIL | {"subject": "Second"}, connection=connection)
            assert [] == sink.deliveries
            connection.commit()
        assert ["Second"] == [one["Subject"] for one in sink.messages]
    engine.dispose()


def test_mail_that_is_scheduled_waits(queue: Queue) -> None:
    with immediate() as sink:
        queue_id = queue.send(**_MAIL, not_before=timedelta(hours=1))

    assert ({"ann@x.org": ShownState.QUEUED}, []) == (queue.status(queue_id), sink.deliveries)


def test_all_that_is_refused_is_told_in_a_report(queue: Queue) -> None:
    with immediate(rejecting("ann@x.org", reply="550 5.7.1 not from you")) as sink:
        queue.send(**_MAIL)

    (report,) = sink.messages
    assert "550 5.7.1 not from you" in report.as_string()
