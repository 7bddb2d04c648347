"""What grows in a long run is told from what does not."""

import os

from tests.faults.samples import of_process, trends
from tests.faults.soak import table


def test_what_stays_within_its_bound_is_good() -> None:
    (trend,) = trends([{"threads": value} for value in (10, 12, 11, 40, 12, 11, 12, 12, 12)])
    assert (11, 12, 40, 21, True) == (trend.first, trend.last, trend.peak, trend.allowed, trend.good)


def test_what_grows_beyond_its_bound_is_told() -> None:
    samples = [{"size with indexes: mailq_lease": float(value)} for value in range(9)]
    (trend,) = trends(samples)
    assert (1.0, 7.0, 3.5, False) == (trend.first, trend.last, trend.allowed, trend.good)
    assert "GROWS" in table([trend])


def test_what_was_hardly_ever_measured_is_left_out() -> None:
    assert [] == trends([{"threads": 1}, {"threads": 100}, {}])


def test_a_process_has_memory_threads_and_files() -> None:
    sample = of_process(os.getpid())
    assert {"resident memory", "threads", "open files"} == set(sample)
    assert all(value > 0 for value in sample.values())


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert {} == of_process(2**22 + 1)
