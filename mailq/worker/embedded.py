"""A whole worker inside the calling process: tasks, dispatcher, and a broker in memory.

For development, demonstrations and small installations: mail is as safe as
with a fleet, since it is in SQL all the same.

Source: celery.md §2.10, §3.
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from celery.concurrency.thread import TaskPool

from mailq.errors import InfrastructureError
from mailq.settings import Settings
from mailq.worker.app import make_app
from mailq.worker.host import BuildRuntime
from mailq.worker.runtime import Runtime
from mailq.worker.wiring import build_runtime, prepare_database

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 30.0


class _ThreadPool(TaskPool):
    """Celery's pool of threads, in which our application is the current one.

    A worker that is a program of its own makes it so for the process; here that is the caller's to say, and a
    thread without a current application would look for our tasks in the caller's.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.executor = ThreadPoolExecutor(
            max_workers=self.limit, thread_name_prefix="mailq-session", initializer=self.app.set_current
        )


@contextlib.contextmanager
def embedded(
    settings: Settings, *, concurrency: int | None = None, build: BuildRuntime = build_runtime
) -> Iterator[Runtime]:
    """Run a worker in threads of this process for the time of a ``with`` block; yields its runtime, ready.

    Leaving the block waits for the sessions being held; their own timeouts bound that.

    Args:
        settings: ``broker_url`` may name any broker; the default lives in this process.
        concurrency: Threads; None is ``worker_concurrency``.
        build: Wires the runtime; a test may give it another world.

    Raises:
        ConfigError: The settings cannot be used, or the database is not migrated.
    """
    if concurrency is not None:
        settings = replace(settings, worker_concurrency=concurrency)
    app = make_app(settings, build=build)
    ready = threading.Event()
    worker = app.WorkController(
        pool_cls=_ThreadPool,
        concurrency=settings.worker_concurrency,
        ready_callback=lambda _consumer: ready.set(),
        without_gossip=True,
        without_mingle=True,
        loglevel="WARNING",
    )
    thread = threading.Thread(target=_run, args=(worker, ready), name="mailq-worker", daemon=True)
    try:
        # Here, so that unusable settings are an error of the caller.
        runtime = app.host.runtime()
        prepare_database(runtime.store)
        thread.start()
        if not ready.wait(_START_SECONDS) or worker.exitcode:
            raise InfrastructureError("the embedded worker did not start; its log says why")
        yield runtime
    finally:
        app.host.stop()
        worker.stop()
        app.host.close()
        if thread.ident is not None:
            thread.join(_STOP_SECONDS)
        app.close()


def _run(worker: Any, ready: threading.Event) -> None:
    try:
        worker.start()
    finally:
        ready.set()
