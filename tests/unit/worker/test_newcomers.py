"""What the dispatcher remembers of new mail."""

from datetime import UTC, datetime

from mailq.queue.dispatch import Newcomer
from mailq.worker.newcomers import OVERLAP, SETTLED_SECONDS, Newcomers

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def mail(*ids: int) -> list[Newcomer]:
    return [Newcomer(one, f"d{one}.test", EPOCH, 5) for one in ids]


def test_what_was_seen_is_not_new_again() -> None:
    newcomers = Newcomers()
    assert mail(1, 2) == newcomers.note(mail(1, 2), 0.0)
    assert mail(3) == newcomers.note(mail(1, 2, 3), 1.0)


def test_what_becomes_visible_a_little_late_is_new() -> None:
    newcomers = Newcomers()
    newcomers.note(mail(4999, 5001), 0.0)
    assert 5001 - OVERLAP == newcomers.after
    assert mail(5000) == newcomers.note(mail(4999, 5000, 5001), 1.0)


def test_little_is_remembered_however_much_comes() -> None:
    newcomers = Newcomers()
    for start in range(1, 20_000, 500):
        newcomers.note(mail(*range(start, start + 500)), 0.0)
    assert len(newcomers._seen) <= OVERLAP + 500


def test_what_was_seen_long_ago_is_to_be_noticed_and_what_came_later_is_not_yet() -> None:
    newcomers = Newcomers()
    assert 0 == newcomers.settled(100.0)
    newcomers.note(mail(1, 2), 100.0)
    newcomers.note(mail(3), 105.0)
    assert [0, 2, 3] == [newcomers.settled(100.0 + SETTLED_SECONDS + later) for later in (-1.0, 0.0, 5.0)]
    assert 3 == newcomers.settled(1e6)
