"""Signals of a worker: what became of each recipient."""

from datetime import UTC, datetime

import pytest

from mailq.worker.listener import OutcomeEvent
from tests.fakes.django_project import set_up

set_up()

from mailq.contrib.django import (  # noqa: E402 - needs the settings
    recipient_bounced,
    recipient_deferred,
    recipient_delivered,
    tracking,
)
from mailq.contrib.django.signals import tell  # noqa: E402 - likewise

SIGNALS = {"delivered": recipient_delivered, "deferred": recipient_deferred, "bounced": recipient_bounced}


def event(word: str) -> OutcomeEvent:
    """What a worker tells."""
    return OutcomeEvent(
        word=word,
        queue_id="Q1",
        recipient="ann@example.net",
        nexthop="example.net",
        relay="",
        status="2.0.0",
        reason="ok",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        due_at=None,
    )


@pytest.fixture
def heard():
    """What was heard of, by signal."""
    said = []
    receivers = {}
    for name, signal in (*SIGNALS.items(), ("tracking", tracking)):

        def receive(event, name=name, **_):
            said.append((name, event.word))

        receivers[signal] = receive
        signal.connect(receive)
    yield said
    for signal, receive in receivers.items():
        signal.disconnect(receive)


@pytest.mark.parametrize(
    ("word", "name"), [("sent", "delivered"), ("deferred", "deferred"), ("bounced", "bounced"), ("expired", "bounced")]
)
def test_each_outcome_has_its_signal_and_all_are_tracked(heard, word, name) -> None:
    tell(event(word))
    assert [(name, word), ("tracking", word)] == heard


def test_rarer_outcomes_are_tracked_alone(heard) -> None:
    tell(event("quarantined"))
    assert [("tracking", "quarantined")] == heard


def test_a_receiver_that_raises_keeps_no_other_from_hearing(heard) -> None:
    def broken(**_):
        raise ValueError("broken")

    recipient_delivered.connect(broken)
    try:
        tell(event("sent"))
    finally:
        recipient_delivered.disconnect(broken)
    assert [("delivered", "sent"), ("tracking", "sent")] == heard
