"""The nouns of the limits: gates, their sizes, and what a delivery says."""

from datetime import timedelta

import pytest

from mailq.limits.buckets import NO_END, Rate, Unit
from mailq.limits.gates import Feedback, Gate, Verdict, check
from mailq.status import EnhancedStatus, Failure, Scope, Stage

SICK = Failure(
    status=EnhancedStatus.parse("4.4.1"), reason="connect to mx: refused", stage=Stage.CONNECT, scope=Scope.SERVER
)


@pytest.mark.parametrize(
    ("sessions", "kept_free", "urgent", "size", "most"),
    [
        (0, 0, False, None, NO_END),
        (20, 0, False, None, 20),
        (20, 2, False, None, 18),
        (20, 2, True, None, 20),
        (20, 0, False, 5, 5),
        (20, 2, False, 5, 5),
        (20, 2, True, 5, 7),
        (20, 2, True, 19, 20),
        (20, 2, False, 19, 18),
        (1, 2, False, None, 1),
        (0, 2, True, 5, 5),
    ],
)
def test_how_many_sessions_may_be_open(sessions, kept_free, urgent, size, most):
    """Source: smtp-delivery Q-20, Q-22."""
    assert most == Gate(key="a", sessions=sessions, kept_free=kept_free, urgent=urgent).most(size)


def test_a_rate_delay_is_for_one_session_at_a_time():
    """Source: smtp-delivery Q-22, Q-40."""
    gate = Gate(key="a", sessions=20, rate_delay=timedelta(seconds=2))
    assert (1, 1, True) == (gate.limit, gate.most(None), gate.has_window)


@pytest.mark.parametrize(
    ("deferred", "failure", "verdict"),
    [
        (False, None, Verdict.POSITIVE),
        (False, SICK, Verdict.POSITIVE),
        (True, None, Verdict.POSITIVE),
        (True, SICK, Verdict.NEGATIVE),
    ],
)
def test_only_a_deferral_by_a_sick_destination_is_bad_news(deferred, failure, verdict):
    """Source: smtp-delivery Q-32."""
    assert verdict is Feedback.of(deferred=deferred, destination_failure=failure).verdict


def test_bad_news_say_what_happened():
    """Source: smtp-delivery Q-35."""
    news = Feedback.of(deferred=True, destination_failure=SICK)
    assert ("4.4.1", "connect to mx: refused") == (news.status, news.reason)


def test_gates_that_contradict_themselves_are_a_bug():
    with pytest.raises(ValueError, match="share a key"):
        check([Gate(key="a"), Gate(key="b"), Gate(key="a", sessions=1)])
    twice = (Rate(unit=Unit.MESSAGES, count=1), Rate(unit=Unit.MESSAGES, count=2))
    with pytest.raises(ValueError, match="share a unit"):
        check([Gate(key="a", rates=twice)])
