"""What a delivery says about its nexthop: dead, well, or neither."""

from dataclasses import replace

import pytest

from mailq.status import Bounced, Deferred, Delivered, DeliveryReport, Outcome, RecipientId, Reply, Stage
from mailq.worker.evidence import death_in, is_well
from tests.fakes.queue_values import SERVER, permanent, transient

ONE = RecipientId(1)


def report(outcome: Outcome, *, stage: Stage | None = None) -> DeliveryReport:
    failure = None if stage is None else replace(transient(), stage=stage)
    return DeliveryReport(outcomes={ONE: outcome}, destination_failure=failure)


@pytest.mark.parametrize("stage", [Stage.RESOLVE, Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.HELO, Stage.LHLO])
def test_a_site_that_cannot_be_spoken_to_is_dead(stage: Stage) -> None:
    """Source: smtp-delivery T-22."""
    found = report(Deferred(transient()), stage=stage)
    assert (found.destination_failure, False) == (death_in(found), is_well(found))


@pytest.mark.parametrize(
    "stage", [Stage.POLICY, Stage.TLS, Stage.STARTTLS, Stage.AUTH, Stage.MAIL, Stage.BODY, Stage.END_OF_DATA]
)
def test_what_may_be_the_messages_own_fault_kills_no_site(stage: Stage) -> None:
    found = report(Deferred(transient()), stage=stage)
    assert (None, False) == (death_in(found), is_well(found))


@pytest.mark.parametrize(
    "outcome",
    [
        Delivered(SERVER, Reply(250, ("250 ok",))),
        Bounced(permanent()),
        Deferred(transient(Reply(450, ("450 4.2.0 later",)))),
    ],
)
def test_a_site_that_answered_is_well_whatever_it_said(outcome: Outcome) -> None:
    """Source: smtp-delivery Q-32, Q-37, scenarios 9.04, 9.05."""
    found = report(outcome)
    assert (None, True) == (death_in(found), is_well(found))


def test_a_delivery_without_a_session_says_nothing() -> None:
    found = report(Deferred(transient()))
    assert (None, False) == (death_in(found), is_well(found))
