"""The account of recipients: exactly one outcome each, whatever is told."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.delivery.ledger import Ledger
from mailq.delivery.report import SessionReport
from mailq.status import (
    Bounced,
    Deferred,
    Delivered,
    Endpoint,
    EnhancedStatus,
    Failure,
    RecipientId,
    Reply,
    Scope,
    Stage,
)

MX = Endpoint("mx.test", "192.0.2.1", 25)
SENT = Delivered(MX, Reply(250, ("250 2.0.0 ok",)))
A, B = RecipientId(1), RecipientId(2)


def failure(status: str, *, scope: Scope = Scope.RECIPIENT, settles: bool | None = None) -> Failure:
    settled = status.startswith("5") if settles is None else settles
    return Failure(status=EnhancedStatus.parse(status), reason="r", stage=Stage.RCPT, scope=scope, settles=settled)


def test_a_ledger_refuses_to_open_without_recipients_or_with_one_twice():
    for recipients in ([], [A, A]):
        with pytest.raises(ValueError, match="at least one recipient, each once"):
            Ledger(recipients)


def test_a_delivered_recipient_is_pending_no_more():
    ledger = Ledger([A, B])
    assert {A: SENT} == dict(ledger.note_session(SessionReport(verdicts={A: SENT})))
    assert (B,) == ledger.pending


def test_a_session_failure_concerns_only_those_without_a_verdict():
    ledger = Ledger([A, B])
    lost = failure("4.4.2", scope=Scope.SERVER)
    ledger.note_session(SessionReport(verdicts={A: failure("4.2.1")}, failure=lost))
    outcomes = ledger.close().outcomes
    assert Deferred(failure("4.2.1")) == outcomes[A]
    assert Deferred(lost) == outcomes[B]


def test_the_latest_evidence_wins_and_the_earlier_is_kept():
    ledger = Ledger([A])
    first, last = failure("4.2.1"), failure("4.4.1", scope=Scope.SERVER)
    ledger.note_session(SessionReport(verdicts={A: first}))
    ledger.note_failure(last)
    assert Deferred(last, (first,)) == ledger.close().outcomes[A]


def test_a_delivery_remembers_which_servers_failed_before():
    ledger = Ledger([A])
    ledger.note_failure(failure("4.4.1", scope=Scope.SERVER))
    settled = ledger.note_session(SessionReport(verdicts={A: SENT}))
    assert {A: replace(SENT, earlier=(failure("4.4.1", scope=Scope.SERVER),))} == dict(settled)


def test_a_permanent_lookup_failure_waits_for_the_close():
    ledger = Ledger([A])
    ledger.note_failure(failure("5.4.4", settles=False))
    assert (A,) == ledger.pending
    assert isinstance(ledger.close().outcomes[A], Bounced)


def test_soft_bounce_lets_nobody_fail():
    ledger = Ledger([A], soft_bounce=True)
    assert {} == ledger.note_session(SessionReport(verdicts={A: failure("5.1.1")}))
    outcome = ledger.close().outcomes[A]
    assert isinstance(outcome, Deferred)
    assert "4.1.1" == str(outcome.failure.status)


def test_without_any_evidence_the_server_is_called_unavailable():
    outcome = Ledger([A]).close().outcomes[A]
    assert isinstance(outcome, Deferred)
    assert "4.3.0" == str(outcome.failure.status)


def test_a_verdict_about_a_stranger_or_a_settled_recipient_is_a_bug():
    ledger = Ledger([A])
    with pytest.raises(ValueError, match="not pending"):
        ledger.note_session(SessionReport(verdicts={B: SENT}))
    ledger.note_session(SessionReport(verdicts={A: SENT}))
    with pytest.raises(ValueError, match="not pending"):
        ledger.note_session(SessionReport(verdicts={A: SENT}))


@pytest.mark.parametrize(
    ("reports", "sick"),
    [
        ([SessionReport(failure=failure("4.4.2", scope=Scope.SERVER))], True),
        ([SessionReport(failure=failure("4.4.2", scope=Scope.MESSAGE))], False),
        ([SessionReport(failure=failure("5.4.2", scope=Scope.SERVER))], False),
        ([SessionReport(verdicts={A: failure("4.2.1")}, completed=True)], False),
        (
            [
                SessionReport(verdicts={A: failure("4.2.1")}, completed=True),
                SessionReport(failure=failure("4.4.1", scope=Scope.SERVER)),
            ],
            False,
        ),
    ],
)
def test_a_destination_is_sick_only_of_server_failures_without_a_transaction(reports, sick):
    """T-22, T-29."""
    ledger = Ledger([A])
    for report in reports:
        ledger.note_session(report)
    assert sick == (ledger.close().destination_failure is not None)


VERDICTS = st.sampled_from([SENT, failure("4.2.1"), failure("5.1.1"), failure("5.6.7", settles=False)])


@given(st.data(), st.integers(1, 4), st.booleans())
def test_every_recipient_has_exactly_one_outcome_whatever_happens(data, count, soft):
    """D-11: conservation of recipients."""
    ids = [RecipientId(i) for i in range(count)]
    ledger = Ledger(ids, soft_bounce=soft)
    settled: dict = {}
    for _ in range(data.draw(st.integers(0, 5))):
        told = data.draw(st.dictionaries(st.sampled_from(ledger.pending), VERDICTS)) if ledger.pending else {}
        everyone = data.draw(st.none() | st.just(failure("4.4.2", scope=Scope.SERVER)))
        newly = ledger.note_session(SessionReport(verdicts=told, failure=everyone))
        assert not newly.keys() & settled.keys()
        settled |= newly
        assert set(ids) == set(settled) | set(ledger.pending)
    outcomes = ledger.close().outcomes
    assert ids == list(outcomes)
    assert settled.items() <= outcomes.items()
    assert not soft or not any(isinstance(o, Bounced) for o in outcomes.values())
