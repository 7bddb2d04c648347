"""Sessions learn within a second what is stopped, and asking costs the database next to nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime

from mailq.errors import DatabaseUnavailableError
from mailq.queue.suspend import Suspension
from mailq.worker.suspended import FRESH_SECONDS, Suspended
from tests.fakes.clock import FakeClock


class Source:
    """Answers what a test says, or that it is down."""

    def __init__(self) -> None:
        self.patterns: list[str] = []
        self.asked = 0
        self.is_down = False

    def suspensions(self) -> Sequence[Suspension]:
        self.asked += 1
        if self.is_down:
            raise DatabaseUnavailableError("down")
        since_at = datetime(2026, 3, 1, tzinfo=UTC)
        return [
            Suspension(pattern=one, since_at=since_at, until_at=None, actor="ann", reason="") for one in self.patterns
        ]


def test_an_answer_is_used_for_a_second() -> None:
    source, clock = Source(), FakeClock()
    suspended = Suspended(source, monotonic=clock.monotonic)
    assert [False, False] == [suspended("far.test"), suspended("near.test")]
    source.patterns = ["site:far.test"]
    assert not suspended("far.test")
    assert 1 == source.asked
    clock.advance(FRESH_SECONDS)
    assert [True, False] == [suspended("far.test"), suspended("near.test")]
    assert 2 == source.asked


def test_while_the_database_is_down_the_last_answer_holds() -> None:
    source, clock = Source(), FakeClock()
    source.patterns = ["nexthop:far.test"]
    suspended = Suspended(source, monotonic=clock.monotonic)
    assert suspended("far.test")
    source.is_down = True
    clock.advance(FRESH_SECONDS)
    assert suspended("far.test")
