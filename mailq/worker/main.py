"""A worker as a program: what ``mailq worker`` runs.

TERM and INT stop it cooperatively: sessions are finished, the rest is handed
back, and another worker goes on at once.

Source: celery.md §2.1, §2.4, §2.5.
"""

import gc
import logging
import sys
from dataclasses import replace
from typing import Final

from celery.utils.nodenames import host_format

from mailq.broker import is_memory
from mailq.errors import ConfigError
from mailq.settings import Settings
from mailq.worker.app import make_app
from mailq.worker.log_writer import written_by_one_thread
from mailq.worker.logs import worker_logs
from mailq.worker.savings import keep_clients
from mailq.worker.wiring import prepare_database

log = logging.getLogger(__name__)

_SWITCH_SECONDS: Final = 0.05
"""So often a thread that waits for the interpreter wakes up to ask for it, and each of hundreds does. Ours give it up
by themselves long before, with the next word to a server."""


def run_worker(settings: Settings, *, concurrency: int | None = None, loglevel: str = "INFO", name: str = "") -> int:
    """Run a worker until it is told to stop; return the process's exit code.

    Args:
        settings: In force for this worker.
        concurrency: Threads, hence sessions; None is ``worker_concurrency``.
        loglevel: Of the worker's own log.
        name: Told apart by it from other workers of this host, in Flower most of all; empty: Celery's own.

    Raises:
        ConfigError: The settings cannot be used, or the database is not migrated.
    """
    if concurrency is not None:
        settings = replace(settings, worker_concurrency=concurrency)
    if is_memory(settings.broker_url):
        log.warning("The broker is in memory: rings of other processes arrive by the dispatcher, a little later")
    sys.setswitchinterval(_SWITCH_SECONDS)
    keep_clients()
    app = make_app(settings)
    try:
        # Before Celery takes over, so that a missing migration is one clear error.
        prepare_database(app.host.runtime().store)
    except ConfigError:
        app.host.close()
        raise
    # Celery sets its log up when a worker is made.
    with worker_logs(settings):
        worker = app.Worker(
            pool_cls="threads",
            concurrency=settings.worker_concurrency,
            loglevel=loglevel,
            hostname=host_format(f"{name}@%h") if name else None,
            without_gossip=True,
            without_mingle=True,
        )
        # What is loaded by now stays: a collection that looks at all of it again stops every session meanwhile.
        gc.collect()
        gc.freeze()
        with written_by_one_thread(logging.getLogger()):
            worker.start()
    return int(worker.exitcode or 0)
