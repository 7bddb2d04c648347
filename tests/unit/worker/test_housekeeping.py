"""Housekeeping: a little in each round, a pause when nothing old is left, orphans once a day."""

import threading
from datetime import timedelta
from typing import Any

import pytest

from mailq.errors import ContentUnavailableError
from mailq.queue.retention import Window
from mailq.settings import Settings
from mailq.worker.housekeeping import PAUSE_SECONDS, SWEEP_SECONDS, WINDOW, Housekeeper


class Keeper:
    """A store that remembers what it was told to do."""

    def __init__(self, *windows: Window, transcripts: int = 0) -> None:
        self.windows = list(windows)
        self.transcripts = transcripts
        self.done: list[Any] = []
        self.swept = threading.Event()
        self.now = 0.0

    def purge_window(self, *, older_than: timedelta, after: str, limit: int) -> Window:
        self.done.append(after)
        return self.windows.pop(0) if self.windows else Window(0, None)

    def forget(self, *, older_than: timedelta, limit: int) -> None:
        self.done.append("forget")

    def purge_transcripts(self, *, older_than: timedelta, limit: int) -> int:
        self.done.append("transcripts")
        return self.transcripts

    def sweep_orphans(self, *, now: object) -> int:
        self.swept.set()
        raise ContentUnavailableError("the place is down")

    def housekeeper(self, **settings: Any) -> Housekeeper:
        store: Any = self
        return Housekeeper(store, Settings(**settings), monotonic=lambda: self.now)


ONLY_MESSAGES = {"transcript_lifetime": timedelta(0)}
ONLY_TRANSCRIPTS = {"history_lifetime": timedelta(0)}


def test_a_round_does_one_window_and_the_next_goes_on_behind_it() -> None:
    keeper = Keeper(Window(100, "A"), Window(0, "B"), Window(3, None))
    housekeeper = keeper.housekeeper(**ONLY_MESSAGES)
    for _ in range(3):
        housekeeper.run_some()
    assert ["", "A", "B", "forget"] == keeper.done


def test_after_a_pass_nothing_is_looked_at_for_a_while() -> None:
    keeper = Keeper()
    housekeeper = keeper.housekeeper(**ONLY_MESSAGES)
    housekeeper.run_some()
    keeper.now = PAUSE_SECONDS - 1
    housekeeper.run_some()
    assert ["", "forget"] == keeper.done
    keeper.now = PAUSE_SECONDS
    housekeeper.run_some()
    assert ["", "forget", "", "forget"] == keeper.done


@pytest.mark.parametrize(("deleted", "rounds"), [(WINDOW, 2), (WINDOW - 1, 1)])
def test_transcripts_are_deleted_round_after_round_until_none_is_old(deleted: int, rounds: int) -> None:
    keeper = Keeper(transcripts=deleted)
    housekeeper = keeper.housekeeper(**ONLY_TRANSCRIPTS)
    housekeeper.run_some()
    housekeeper.run_some()
    assert ["transcripts"] * rounds == keeper.done


def test_with_lifetimes_of_zero_everything_is_kept() -> None:
    keeper = Keeper()
    keeper.housekeeper(**ONLY_MESSAGES, **ONLY_TRANSCRIPTS).run_some()
    assert [] == keeper.done


def test_orphans_are_looked_for_once_a_day_and_trouble_with_that_stops_nothing() -> None:
    keeper = Keeper()
    housekeeper = keeper.housekeeper(content_url="file:///nowhere", **ONLY_MESSAGES, **ONLY_TRANSCRIPTS)
    housekeeper.run_some()
    assert not keeper.swept.is_set()
    for _ in range(2):
        keeper.now += SWEEP_SECONDS
        keeper.swept.clear()
        housekeeper.run_some()
        assert keeper.swept.wait(30)
        housekeeper.join(timeout_seconds=30)
    keeper.swept.clear()
    keeper.now += SWEEP_SECONDS / 2
    housekeeper.run_some()
    assert not keeper.swept.is_set()
