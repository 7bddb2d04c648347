"""A worker as a program: what ``mailq worker`` runs.

TERM and INT stop it cooperatively: sessions are finished, the rest is handed
back, and another worker goes on at once. It has as many processes as there are
processors to use, up to a few, see :mod:`mailq.worker.crew`.

Source: celery.md §2.1, §2.4, §2.5.
"""

import logging
import signal
import sys
from contextlib import closing
from dataclasses import replace
from typing import Final

from celery.signals import worker_ready
from celery.utils.nodenames import host_format

from mailq.broker import is_memory
from mailq.errors import ConfigError
from mailq.queue.engine import is_sqlite
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.worker.app import make_app
from mailq.worker.crew import Crew
from mailq.worker.log_writer import written_by_one_thread
from mailq.worker.logs import log_to_stderr, worker_logs
from mailq.worker.memory import collect_rarely, keep_what_is_loaded, share_arenas
from mailq.worker.metrics_page import with_port_behind
from mailq.worker.processors import usable_processors
from mailq.worker.savings import keep_clients
from mailq.worker.wiring import prepare_database

log = logging.getLogger(__name__)

_MOST_PROCESSES: Final = 4
"""Of a worker that was not told how many: each takes memory of its own, and connections to the database."""
_CELERYS_NAME: Final = "celery"
_SWITCH_SECONDS: Final = 0.05
"""So often a thread that waits for the interpreter wakes up to ask for it, and each of hundreds does. Ours give it up
by themselves long before, with the next word to a server."""


def run_worker(
    settings: Settings,
    *,
    concurrency: int | None = None,
    processes: int | None = None,
    loglevel: str = "INFO",
    name: str = "",
) -> int:
    """Run a worker until it is told to stop; return the process's exit code.

    Args:
        settings: In force for this worker.
        concurrency: Threads of each process, hence sessions; None is ``worker_concurrency``.
        processes: None is ``worker_processes``.
        loglevel: Of the worker's own log.
        name: Told apart by it from other workers of this host, in Flower most of all; empty: Celery's own. Where there
            are several processes, each has its number behind a hyphen.

    Raises:
        ConfigError: The settings cannot be used, or the database is not migrated.
    """
    if concurrency is not None:
        settings = replace(settings, worker_concurrency=concurrency)
    if processes is not None:
        settings = replace(settings, worker_processes=processes)
    if is_memory(settings.broker_url):
        log.warning("The broker is in memory: rings of other processes arrive by the dispatcher, a little later")
    count = process_count(settings, processors=usable_processors())
    if count == 1:
        return _work(settings, loglevel=loglevel, name=name)
    return _work_together(settings, count, loglevel=loglevel, name=name or _CELERYS_NAME)


def process_count(settings: Settings, *, processors: int) -> int:
    """Return how many processes a worker has: ``worker_processes``, where it is 0 as many as there is use for."""
    if settings.worker_processes:
        return settings.worker_processes
    # A broker in memory is no other process's, and a file has one writer at a time.
    if is_memory(settings.broker_url) or is_sqlite(settings.database_url):
        return 1
    return min(processors, _MOST_PROCESSES)


def _work_together(settings: Settings, count: int, *, loglevel: str, name: str) -> int:
    """Run *count* processes until they are told to stop; return the exit code."""
    # Each process has the rest of its log set up by Celery.
    log_to_stderr(settings, level=logging.WARNING)
    logging.getLogger(Crew.__module__).setLevel(loglevel.upper())
    # Here, so that what is wrong is one clear error; nothing stays open over the forks.
    pages = [with_port_behind(settings.metrics_address, number) for number in range(count)]
    with closing(Store.open(settings.database_url)) as store:
        prepare_database(store)

    def work(number: int) -> int:
        worker_ready.connect(_ignore_hangups)
        return _work(replace(settings, metrics_address=pages[number]), loglevel=loglevel, name=f"{name}-{number + 1}")

    keep_what_is_loaded()
    return Crew(work, count).run()


def _work(settings: Settings, *, loglevel: str, name: str) -> int:
    sys.setswitchinterval(_SWITCH_SECONDS)
    share_arenas()
    collect_rarely()
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
        keep_what_is_loaded()
        with written_by_one_thread(logging.getLogger()):
            worker.start()
    return int(worker.exitcode or 0)


def _ignore_hangups(**_said: object) -> None:
    """Undo what Celery makes of HUP: this one process would become the whole command once more."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
