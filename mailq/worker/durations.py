"""Histograms of seconds that cost little: many observations under one lock, no object for each.

A delivery takes some 100 microseconds and has five stages; the client library's histogram takes one or two
microseconds an observation.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

SHORT_WAITS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds for what a server is waited for."""
LONG_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""Bounds for what mail waits for."""


class Durations(Collector):
    """One histogram; safe to use from many threads.

    Args:
        name: Of the metric.
        text: Its meaning.
        label: Its one label; empty: it has none.
        bounds: Of the buckets, ascending, in seconds.
    """

    def __init__(self, name: str, text: str, *, label: str = "", bounds: tuple[float, ...] = SHORT_WAITS) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {} if label else {"": self._empty()}
        self._sums: dict[str, float] = {} if label else {"": 0.0}

    def observe(self, seconds: Iterable[tuple[str, float]]) -> None:
        """Count each duration under its label's value."""
        with self._lock:
            for value, one in seconds:
                counts = self._counts.get(value)
                if counts is None:
                    counts = self._counts[value] = self._empty()
                    self._sums[value] = 0.0
                counts[bisect_left(self._bounds, one)] += 1
                self._sums[value] += one

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield what was counted so far."""
        with self._lock:
            counts = {value: list(counted) for value, counted in self._counts.items()}
            sums = dict(self._sums)
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for value, counted in counts.items():
            total = 0
            buckets = []
            for bound, count in zip((*map(str, self._bounds), "+Inf"), counted, strict=True):
                total += count
                buckets.append((bound, float(total)))
            family.add_metric([value] if self._label else [], buckets, sum_value=sums[value])
        yield family

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Yield its name without values, so that registering it counts nothing."""
        yield HistogramMetricFamily(self._name, self._text)

    def _empty(self) -> list[int]:
        return [0] * (len(self._bounds) + 1)
