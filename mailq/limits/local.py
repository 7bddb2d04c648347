"""Slots of one process: for the embedded worker, and for brokers that cannot count."""

import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from mailq.limits.slots import Holder, holder_of, new_token


class LocalSlots:
    """The port :class:`mailq.limits.slots.Slots` in memory.

    Args:
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ends_at: dict[str, dict[str, float]] = {}

    def take(self, key: str, *, limit: int, hold_for: timedelta, owner: str = "") -> str | None:
        """Take one of *limit* slots, 0 being no limit; None when all are taken."""
        with self._lock:
            taken = self._current(key)
            if limit and len(taken) >= limit:
                return None
            token = new_token(owner)
            self._hold(key, token, hold_for)
            return token

    def renew(self, held: Iterable[tuple[str, str]], *, hold_for: timedelta) -> None:
        """Hold every (key, token) pair for another *hold_for*."""
        with self._lock:
            for key, token in held:
                self._hold(key, token, hold_for)

    def release(self, key: str, token: str) -> None:
        """Give a slot back; harmless when it is gone already."""
        with self._lock:
            taken = self._current(key)
            taken.pop(token, None)
            if not taken:
                self._ends_at.pop(key, None)

    def held(self, key: str) -> int:
        """Return how many slots of *key* are taken now."""
        with self._lock:
            return len(self._current(key))

    def holders(self, key: str) -> tuple[Holder, ...]:
        """Return who has a slot of *key* now, by name."""
        with self._lock:
            now = self._monotonic()
            current = self._current(key)
            return tuple(holder_of(token, timedelta(seconds=current[token] - now)) for token in sorted(current))

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _hold(self, key: str, token: str, hold_for: timedelta) -> None:
        self._ends_at.setdefault(key, {})[token] = self._monotonic() + hold_for.total_seconds()

    def _current(self, key: str) -> dict[str, float]:
        """Forget what ran out, and return the rest; the lock is held."""
        now = self._monotonic()
        taken = {token: ends_at for token, ends_at in self._ends_at.get(key, {}).items() if ends_at > now}
        if taken:
            self._ends_at[key] = taken
        else:
            self._ends_at.pop(key, None)
        return taken
