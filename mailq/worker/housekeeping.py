"""What is finished and old goes, a little at a time, beside the dispatcher's rounds.

A round deletes at most one window of messages and one of transcripts, so it
is never held up; when nothing old is left, it looks again after a while.
Orphaned content is looked for once a day, in a thread of its own, because
listing a store of objects takes as long as it takes.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from mailq.errors import ContentUnavailableError, InfrastructureError
from mailq.queue.store import Store
from mailq.settings import Settings

log = logging.getLogger(__name__)

WINDOW: Final = 100
"""Most messages, and most transcripts, looked at in one round."""
PAUSE_SECONDS: Final = 60.0
"""Between two passes."""
SWEEP_SECONDS: Final = 86_400.0
_FIRST_SWEEP_SECONDS: Final = 3600.0


class Housekeeper:
    """Runs windows; for one thread.

    Args:
        store: The queue.
        settings: Of these, ``history_lifetime``, ``transcript_lifetime`` and ``content_url``.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, store: Store, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._history = settings.history_lifetime
        self._transcripts = settings.transcript_lifetime
        self._has_objects = bool(settings.content_url)
        self._monotonic = monotonic
        self._after = ""
        self._messages_at = self._transcripts_at = float("-inf")
        self._sweep_at = monotonic() + _FIRST_SWEEP_SECONDS
        self._sweeper: threading.Thread | None = None

    def run_some(self) -> None:
        """Do a little of what is due.

        Raises:
            DatabaseUnavailableError: The database is down; what was not done is done later.
        """
        now = self._monotonic()
        if self._history and now >= self._messages_at:
            self._purge_messages(now)
        if self._transcripts and now >= self._transcripts_at:
            self._purge_transcripts(now)
        if self._has_objects and now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._sweeper = threading.Thread(target=self._sweep, name="mailq-orphans", daemon=True)
            self._sweeper.start()

    def join(self, *, timeout_seconds: float) -> None:
        """Wait for a sweep that is under way."""
        if self._sweeper is not None:
            self._sweeper.join(timeout_seconds)

    def _purge_messages(self, now: float) -> None:
        window = self._store.purge_window(older_than=self._history, after=self._after, limit=WINDOW)
        self._after = window.after or ""
        if window.after is None:
            self._messages_at = now + PAUSE_SECONDS
            self._store.forget(older_than=self._history, limit=WINDOW)
        if window.purged:
            log.info("%d messages that ended long ago were deleted", window.purged)

    def _purge_transcripts(self, now: float) -> None:
        if self._store.purge_transcripts(older_than=self._transcripts, limit=WINDOW) < WINDOW:
            self._transcripts_at = now + PAUSE_SECONDS

    def _sweep(self) -> None:
        try:
            swept = self._store.sweep_orphans(now=datetime.now(UTC))
        except (ContentUnavailableError, InfrastructureError) as error:
            log.warning("Orphaned content could not be swept and is looked for tomorrow: %s", error)
        except Exception:
            log.exception("Sweeping orphaned content failed; it is tried again tomorrow")
        else:
            log.info("%d objects that no message refers to were deleted", swept)


def no_housekeeping() -> None:
    """Keep everything."""
