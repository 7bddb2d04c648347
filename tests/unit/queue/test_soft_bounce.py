"""With soft_bounce nothing is given up: what cannot be told of must not end."""

from datetime import UTC, datetime, timedelta

import pytest

from mailq.queue.backoff import GiveUp, RetryAt, RetrySchedule, dispose
from mailq.settings import Settings
from mailq.status import Deferred, Reply
from tests.fakes.queue_values import transient

ARRIVED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = ARRIVED + timedelta(days=9)


def schedule(*, soft_bounce: bool) -> RetrySchedule:
    settings = Settings(soft_bounce=soft_bounce, backoff_jitter=0.0, maximal_backoff_time=timedelta(hours=1))
    return RetrySchedule.of(settings, sender="ann@home.test")


@pytest.mark.parametrize("expires_at", [None, ARRIVED + timedelta(hours=1)])
@pytest.mark.parametrize("reply", [None, Reply(450, ("450 4.7.1 try again in 300 seconds",))])
def test_what_is_too_old_is_tried_again(expires_at: datetime | None, reply: Reply | None) -> None:
    """Source: smtp-delivery B-15, Q-53."""
    found = {
        soft: dispose(
            Deferred(transient(reply)),
            schedule(soft_bounce=soft),
            arrived_at=ARRIVED,
            expires_at=expires_at,
            now=LATER,
            jitter=0,
        )
        for soft in (False, True)
    }
    assert GiveUp(expired=True) == found[False]
    assert isinstance(found[True], RetryAt)
    assert LATER < found[True].due_at <= LATER + timedelta(hours=1)
