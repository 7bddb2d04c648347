import pytest

from mailq.queue.messages import AtWork
from mailq.status import RecipientId
from mailq.worker.ahead import Ahead, Part, named_at_first, named_from


def parts(*names: str) -> list[Part]:
    """Return parts; those in capitals are sent alone."""
    return [Part(AtWork(name.lower()), alone=name.isupper()) for name in names]


@pytest.mark.parametrize(
    ("expected", "start", "most"),
    [
        ((AtWork("a"), 1), 0, 1),
        ((AtWork("a", also=("b",)), 2), 0, 2),
        ((AtWork("b", also=("c",)), 3), 1, 2),
        ((AtWork("a", also=("b", "c", "d")), 4), 0, 9),
        ((AtWork("d"), 4), 3, 9),
    ],
)
def test_the_lease_names_what_comes_next(expected: tuple[AtWork, int], start: int, most: int) -> None:
    """Source: smtp-delivery Q-45."""
    assert expected == named_from(parts("a", "b", "c", "d"), start, most=most)


@pytest.mark.parametrize(
    ("expected", "batch", "begun"),
    [
        (1, parts("a", "b"), ["a"]),
        (2, parts("a", "b", "c"), ["a", "b"]),
        (3, parts("a", "b", "c"), ["a", "b", "c"]),
        (1, parts("A", "b"), ["a"]),
        (0, parts("A", "b"), ["a", "b"]),
        (0, parts("a", "B", "c"), ["a", "b"]),
        (2, parts("a", "b", "C"), ["a", "b"]),
        (0, [Part(AtWork("a", RecipientId(7)), alone=True), Part(AtWork("a"), alone=True)], ["a"]),
        (0, [*parts("a"), Part(AtWork("b", RecipientId(7)), alone=True), Part(AtWork("b"), alone=True)], ["a", "b"]),
        (0, [], ["a"]),
    ],
)
def test_what_a_lease_was_begun_with_counts_where_the_session_would_name_it_too(
    expected: int, batch: list[Part], begun: list[str]
) -> None:
    """Source: smtp-delivery Q-45."""
    assert expected == named_at_first(batch, begun)


def test_what_is_to_be_alone_is_named_alone() -> None:
    batch = parts("a", "b", "C", "d")
    assert (AtWork("a", also=("b",)), 2) == named_from(batch, 0, most=9)
    assert (AtWork("c"), 3) == named_from(batch, 2, most=9)


def test_part_of_a_message_is_named_by_its_last_recipient() -> None:
    first = AtWork("a", RecipientId(7))
    assert (first, 1) == named_from([Part(first, alone=True), Part(AtWork("a"), alone=True)], 0, most=9)


def test_a_session_that_waits_for_the_database_runs_further_ahead_up_to_a_limit() -> None:
    ahead = Ahead(5)
    seen = [ahead.now]
    for _ in range(4):
        ahead.note(work_seconds=0.001, wait_seconds=0.002)
        seen.append(ahead.now)
    assert [1, 2, 4, 5, 5] == seen


def test_a_session_that_need_not_wait_stays_as_far_ahead_as_it_is() -> None:
    ahead = Ahead(8)
    ahead.note(work_seconds=0.001, wait_seconds=0.002)
    ahead.note(work_seconds=0.001, wait_seconds=0.0)
    assert 2 == ahead.now


def test_a_slow_server_gets_one_message_at_a_time() -> None:
    ahead = Ahead(8)
    ahead.note(work_seconds=0.001, wait_seconds=0.002)
    ahead.note(work_seconds=1.0, wait_seconds=0.5)
    assert 1 == ahead.now
