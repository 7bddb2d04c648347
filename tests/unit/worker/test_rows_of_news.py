"""What one delivery says of how many sessions its nexthop bears."""

from dataclasses import replace

import pytest

from mailq.limits.gates import Verdict
from mailq.status import Bounced, Deferred, Delivered, DeliveryReport, Failure, Outcome, RecipientId, Reply
from mailq.worker.evidence import news_of
from tests.fakes.queue_values import SERVER, permanent, transient

TAKEN = Delivered(SERVER, Reply(250, ("250 ok",)))
BUSY = Deferred(transient(Reply(450, ("450 4.2.0 later",))))
SPOILT = Deferred(replace(transient(), fault="ours.py:7 in render"))
SICK = transient()


@pytest.mark.parametrize(
    ("outcomes", "sick", "verdict"),
    [
        ([TAKEN], None, Verdict.POSITIVE),
        ([BUSY], None, Verdict.POSITIVE),
        ([Bounced(permanent())], None, Verdict.POSITIVE),
        ([Bounced(permanent())], SICK, Verdict.POSITIVE),
        ([BUSY], SICK, Verdict.NEGATIVE),
        ([TAKEN, BUSY], SICK, Verdict.NEGATIVE),
    ],
)
def test_a_server_that_answers_is_good_news_and_a_sick_one_that_keeps_mail_waiting_is_bad(
    outcomes: list[Outcome], sick: Failure | None, verdict: Verdict
) -> None:
    """Source: smtp-delivery Q-32."""
    assert verdict is news_of(_report(outcomes, sick)).verdict


@pytest.mark.parametrize("sick", [None, SICK])
def test_what_our_own_code_spoilt_is_no_news_of_the_destination(sick: Failure | None) -> None:
    """Source: smtp-delivery Q-32, Q-45."""
    assert Verdict.NONE is news_of(_report([TAKEN, SPOILT], sick)).verdict


def _report(outcomes: list[Outcome], sick: Failure | None) -> DeliveryReport:
    by_id = {RecipientId(number): outcome for number, outcome in enumerate(outcomes)}
    return DeliveryReport(outcomes=by_id, destination_failure=sick)
