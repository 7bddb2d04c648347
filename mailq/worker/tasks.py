"""The Celery tasks: a few lines each, the work is elsewhere.

A task never raises for mail, is never retried by Celery, names nothing but a
nexthop, and returns nothing but counts.

Source: celery.md §0, §6 pitfalls 4, 34 and 43.
"""

import logging
from collections.abc import Callable

from celery import Celery

from mailq.broker import DELIVER_TASK, DISPATCH_TASK, RING_VERSION
from mailq.worker.runtime import Runtime
from mailq.worker.serve import serve_nexthop
from mailq.worker.tally import tally
from mailq.worker.wiring import build_dispatcher

log = logging.getLogger(__name__)


def register_tasks(app: Celery, runtime: Callable[[], Runtime]) -> None:
    """Give *app* its tasks; *runtime* returns the one of the process that runs them."""

    def deliver(nexthop: str = "", v: int = 0, **later: object) -> str:
        """Answer a ring; what is returned is for people who look at the events of tasks."""
        if v != RING_VERSION or later or not nexthop:
            # Of another release of mailq: its own workers know what to do when the dispatcher rings again.
            log.warning("A ring of version %s is ignored; this worker knows %s", v, RING_VERSION)
            return "ignored: a ring of another release"
        present = runtime()
        began = present.monotonic()
        with tally() as outcomes:
            _serve(nexthop, present)
        return outcomes.line(present.monotonic() - began)

    def dispatch() -> None:
        """Run one round of the dispatcher, for those who schedule it with Celery beat."""
        build_dispatcher(runtime(), goes_on=False).run_once()

    # Not shared: Celery would give them to every other application of the process, with our runtime.
    app.task(name=DELIVER_TASK, shared=False)(deliver)
    app.task(name=DISPATCH_TASK, shared=False)(dispatch)


def _serve(nexthop: str, runtime: Runtime) -> None:
    runtime.on_ring()
    try:
        serve_nexthop(nexthop, runtime)
    except Exception:
        log.exception("Serving %s stumbled; it is rung for again", nexthop)
        # Events of tasks travel over the broker and are shown: what an error says may hold an address.
        raise RuntimeError("the task stumbled; the log of the worker says over what") from None
