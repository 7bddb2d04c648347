"""Servers of a service come by priority, and by weight within it."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.routing.srv import ServiceRecord, order_services, service_name


class Draws(Random):
    """Leaves the order as it is, and draws the given thresholds; remembers what they could have been at most."""

    def __init__(self, *thresholds: int) -> None:
        super().__init__(0)
        self.thresholds = list(thresholds)
        self.most: list[int] = []

    def shuffle(self, x) -> None:
        pass

    def randint(self, a: int, b: int) -> int:
        assert a == 0
        self.most.append(b)
        return self.thresholds.pop(0)


def record(name: str, priority: int = 10, weight: int = 0) -> ServiceRecord:
    return ServiceRecord(priority, weight, 587, name)


def names(records) -> str:
    return "".join(r.target for r in records)


def test_the_name_to_ask_for_has_underscores():
    """A-60."""
    assert "_submission._tcp.dest.test" == service_name("submission", "dest.test")


def test_a_lower_priority_goes_first_whatever_its_weight():
    """A-63."""
    records = [record("c", 30, 900), record("a", 10, 1), record("b", 20, 9)]
    assert {"abc"} == {names(order_services(records, rng=Random(seed))) for seed in range(50)}


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ((0, 0, 0), "abc"),
        ((1, 0, 0), "abc"),
        ((2, 0, 0), "bac"),
        ((3, 2, 0), "bca"),
        ((4, 0, 0), "cab"),
        ((6, 3, 0), "cba"),
    ],
)
def test_the_first_record_whose_running_sum_reaches_the_draw_goes_next(thresholds: tuple[int, ...], expected: str):
    """A-63: weights 1, 2 and 3, so 0 to 1 draws the first, 2 to 3 the second, 4 to 6 the third."""
    records = [record("a", weight=1), record("b", weight=2), record("c", weight=3)]
    assert expected == names(order_services(records, rng=Draws(*thresholds)))


def test_what_was_drawn_no_longer_weighs():
    """A-63."""
    draws = Draws(6, 3, 1)
    order_services([record("a", weight=1), record("b", weight=2), record("c", weight=3)], rng=draws)
    assert [6, 3, 1] == draws.most


def test_a_record_without_weight_can_still_come_first():
    """A-63, RFC 2782."""
    records = [record("a", weight=0), record("b", weight=5)]
    assert "ab" == names(order_services(records, rng=Draws(0, 0)))
    assert "ba" == names(order_services(records, rng=Draws(1, 0)))


def test_without_any_weight_the_shuffled_order_stays():
    """A-63."""
    records = [record(name) for name in "abcd"]
    assert "abcd" == names(order_services(records, rng=Draws(0, 0, 0, 0)))
    assert len({names(order_services(records, rng=Random(seed))) for seed in range(200)}) == 24


def test_the_share_of_first_places_follows_the_weights():
    """A-63: three to one, over two thousand fixed seeds."""
    records = [record("a", weight=75), record("b", weight=25)]
    first = Counter(order_services(records, rng=Random(seed))[0].target for seed in range(2000))
    assert 1400 < first["a"] < 1600


RECORDS = st.builds(
    ServiceRecord,
    priority=st.integers(0, 3),
    weight=st.integers(0, 65535),
    port=st.integers(1, 65535),
    target=st.sampled_from(["a.test", "b.test", "c.test"]),
)


@given(st.lists(RECORDS, max_size=20), st.integers())
def test_ordering_loses_nothing_adds_nothing_and_keeps_the_priorities(records: list[ServiceRecord], seed: int):
    """A-63."""
    ordered = order_services(records, rng=Random(seed))
    assert Counter(records) == Counter(ordered)
    assert sorted(r.priority for r in records) == [r.priority for r in ordered]
