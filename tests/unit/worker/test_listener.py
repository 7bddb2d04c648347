"""Telling an application what became of its mail."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mailq.envelope import Recipient
from mailq.errors import ConfigError
from mailq.queue.backoff import Done, RetryAt
from mailq.queue.messages import RecipientResult
from mailq.status import Deferred, Delivered, Endpoint, EnhancedStatus, Failure, RecipientId, Reply, Scope, Stage
from mailq.worker.listener import OutcomeEvent, load_listener, tell_no_application, tell_outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER = Endpoint("mx.example.net", "192.0.2.1", 25)
ANN = Recipient(id=RecipientId(1), address="ann@example.net")
told: list[OutcomeEvent] = []
not_callable = 7


def note(event: OutcomeEvent) -> None:
    """A listener."""
    told.append(event)


def broken(_event: OutcomeEvent) -> None:
    """A listener that does not work."""
    raise ValueError("broken")


def result(outcome, disposition) -> RecipientResult:
    """One outcome as it is recorded."""
    return RecipientResult(
        recipient_id=ANN.id, outcome=outcome, disposition=disposition, started_at=NOW, finished_at=NOW
    )


SENT = result(Delivered(SERVER, Reply(250, ("250 2.0.0 queued as 7",))), Done())
FAILURE = Failure(
    status=EnhancedStatus.parse("4.2.2"),
    reason="mailbox full",
    stage=Stage.RCPT,
    scope=Scope.RECIPIENT,
    endpoint=SERVER,
)
DEFERRED = result(Deferred(FAILURE), RetryAt(due_at=NOW))


@pytest.fixture(autouse=True)
def _silence() -> None:
    told.clear()


def test_a_delivery_is_told_with_the_servers_words() -> None:
    tell_outcome(note, "Q1", "example.net", ANN, SENT)
    assert [
        OutcomeEvent(
            word="sent",
            queue_id="Q1",
            recipient="ann@example.net",
            nexthop="example.net",
            relay="mx.example.net[192.0.2.1]:25",
            status="2.0.0",
            reason="250 2.0.0 queued as 7",
            at=NOW,
            due_at=None,
        )
    ] == told


def test_a_deferral_is_told_with_the_time_of_the_next_attempt() -> None:
    tell_outcome(note, "Q1", "example.net", ANN, DEFERRED)
    (one,) = told
    assert ("deferred", "4.2.2", "mailbox full", NOW) == (one.word, one.status, one.reason, one.due_at)


def test_what_a_listener_raises_is_logged_and_harms_nobody(caplog) -> None:
    tell_outcome(broken, "Q1", "example.net", ANN, SENT)
    assert "on_outcome failed for Q1" in caplog.text


def test_without_a_name_nobody_is_told() -> None:
    assert tell_no_application is load_listener("")
    assert None is tell_no_application(SimpleNamespace())


def test_a_function_is_found_by_its_name() -> None:
    assert SimpleNamespace is load_listener("types:SimpleNamespace")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("types", "not of the form"),
        ("no_such_module:tell", "must be importable"),
        ("types:no_such_attribute", "cannot be loaded"),
        ("sys:version", "cannot be called"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name, words) -> None:
    with pytest.raises(ConfigError, match=words):
        load_listener(name)
