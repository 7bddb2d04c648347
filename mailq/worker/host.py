"""The life of a worker around its tasks: what starts with it and stops with it.

Each process builds its runtime when its first task or thread asks, and a
forked child builds its own: sockets and connections are never shared over a
fork.

Source: celery.md §2.2, §2.4, §2.11.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from celery import Celery, bootsteps
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state

from mailq.broker import is_memory
from mailq.settings import Settings
from mailq.worker.broker_look import BrokerLook
from mailq.worker.dispatch_loop import DispatchLoop
from mailq.worker.metrics_page import MetricsPage
from mailq.worker.runtime import Runtime
from mailq.worker.unrung import Places
from mailq.worker.wanted import Wanted
from mailq.worker.wiring import build_dispatcher, build_runtime, prepare_database

log = logging.getLogger(__name__)

BuildRuntime = Callable[[Settings], Runtime]
"""Makes the runtime of a process; the program's own is :func:`mailq.worker.wiring.build_runtime`."""


class Host:
    """Owns the runtime of the present process, and the dispatcher's thread in a worker's first one."""

    def __init__(self, settings: Settings, *, build: BuildRuntime = build_runtime) -> None:
        self.settings = settings
        self._build = build
        self._lock = threading.Lock()
        self._pid = 0
        self._runtime: Runtime | None = None
        self._loop: DispatchLoop | None = None
        self._rings: BrokerLook | None = None
        self.metrics_page: MetricsPage | None = None
        self.places: Places | None = None

    def runtime(self) -> Runtime:
        """Return this process's runtime, built on first use with its heartbeat running."""
        with self._lock:
            if self._runtime is None or self._pid != os.getpid():
                self._runtime = self._build(self.settings)
                self._pid = os.getpid()
                self._runtime.heartbeat.start()
                self._runtime.pulse.start()
            return self._runtime

    def has_threads(self, threads: int) -> None:
        """Take note, before the runtime is built, that Celery was started with other than ``worker_concurrency``."""
        self.settings = replace(self.settings, worker_concurrency=threads)

    def open(self) -> None:
        """Prepare the database, show metrics where that is wanted, and start dispatching.

        Raises:
            ConfigError: The settings cannot be used, or the database is not migrated.
        """
        runtime = self.runtime()
        prepare_database(runtime.store)
        runtime.metrics.watch_tasks(lambda: runtime.running, threads=runtime.settings.worker_concurrency)
        self.metrics_page = MetricsPage(runtime.metrics.registry, runtime.settings.metrics_address)
        self.metrics_page.open()
        self._loop = DispatchLoop(
            build_dispatcher(runtime, places=self.places),
            store=runtime.store,
            owner=runtime.owner,
            interval=runtime.settings.dispatch_interval,
            on_round=lambda done, seconds: runtime.metrics.dispatched(
                seconds, freed=done.freed, noticed=done.noticed, rung=done.rung, reports=done.reports
            ),
        )
        runtime.on_ring = self._loop.hurry
        if not is_memory(self.settings.broker_url):
            self._rings = BrokerLook(self.settings)
            wanted = Wanted(
                tasks=lambda: runtime.running,
                extras=lambda: runtime.extras,
                threads=runtime.settings.worker_concurrency,
                is_busy=lambda: runtime.pulse.busy or runtime.pulse.late,
                workers=lambda: runtime.desk.proven.workers,
                rings=self._rings,
            )
            runtime.is_wanted, runtime.may_call = wanted, wanted.may_call
        self._loop.start()

    def stop(self) -> None:
        """Ask all tasks to end, and leave dispatching to others; waits for the latter only."""
        if self._runtime is not None:
            self._runtime.stop()
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def close(self) -> None:
        """Wait for the tasks, then close everything.

        The runtime is kept: a task that Celery starts even now finds it stopping, and leaves its mail to others.
        """
        self.stop()
        if self._runtime is not None:
            # Unbounded here, bounded there: every wait of a session has its timeout.
            self._runtime.drain()
            self._runtime.close()
        if self.metrics_page is not None:
            self.metrics_page.close()
        if self._rings is not None:
            self._rings.close()


class MailqApp(Celery):
    """A Celery application that has a :class:`Host`."""

    host: Host


class PoolPlaces:
    """The threads of a Celery worker that fetches a ring only when it has a thread for it.

    Args:
        worker: Celery's, with a pool of threads.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def taken(self) -> int:
        """Return how many tasks Celery has fetched and not finished."""
        return len(state.reserved_requests)

    def leave(self, threads: int) -> None:
        """Have Celery fetch another only while there are fewer: the bound is meant for what scales the pool."""
        self._worker.max_concurrency = threads


class HostStep(bootsteps.StartStopStep):
    """Ties the host to the life of a Celery worker; stops after its consumer and before its pool."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._host: Host = worker.app.host
        if "prefork" in worker.pool_cls.__module__:
            log.warning("The prefork pool needs a process for every session; use --pool=threads")
        elif worker.concurrency:
            self._host.has_threads(int(worker.concurrency))
        if worker.app.conf.worker_disable_prefetch and issubclass(worker.pool_cls, ThreadPool):
            self._host.places = PoolPlaces(worker)

    def start(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Begin to dispatch."""
        self._host.open()

    def close(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Tell running tasks to end, as soon as the worker is told to stop."""
        self._host.stop()

    def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Wait for running tasks, then let go of everything."""
        self._host.close()

    def terminate(self, worker: Any) -> None:
        """Do the same: threads cannot be ended from outside."""
        self.stop(worker)
