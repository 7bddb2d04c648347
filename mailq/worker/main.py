"""A worker as a program: what ``mailq worker`` runs.

TERM and INT stop it cooperatively: sessions are finished, the rest is handed
back, and another worker goes on at once.

Source: celery.md §2.1, §2.4, §2.5.
"""

import logging

from mailq.broker import is_memory
from mailq.errors import ConfigError
from mailq.settings import Settings
from mailq.worker.app import make_app
from mailq.worker.wiring import prepare_database

log = logging.getLogger(__name__)


def run_worker(settings: Settings, *, concurrency: int | None = None, loglevel: str = "INFO") -> int:
    """Run a worker until it is told to stop; return the process's exit code.

    Args:
        settings: In force for this worker.
        concurrency: Threads, hence sessions; None is ``worker_concurrency``.
        loglevel: Of the worker's own log.

    Raises:
        ConfigError: The settings cannot be used, or the database is not migrated.
    """
    if is_memory(settings.broker_url):
        log.warning("The broker is in memory: rings of other processes arrive by the dispatcher, a little later")
    app = make_app(settings)
    try:
        # Before Celery takes over, so that a missing migration is one clear error.
        prepare_database(app.host.runtime().store)
    except ConfigError:
        app.host.close()
        raise
    worker = app.Worker(
        pool_cls="threads",
        concurrency=concurrency or settings.worker_concurrency,
        loglevel=loglevel,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
