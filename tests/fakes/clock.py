"""A clock that moves when it is told to."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """The time stands still until :meth:`advance`."""

    def __init__(self, start: datetime = datetime(2026, 11, 1, 12, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = timedelta(0)

    def now(self) -> datetime:
        return self._start + self._passed

    def monotonic(self) -> float:
        return self._passed.total_seconds()

    def advance(self, seconds: float) -> None:
        self._passed += timedelta(seconds=seconds)
