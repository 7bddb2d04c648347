"""The worker's Celery application: ``celery -A mailq.worker.app worker``.

Importing this module reads no settings and connects to nothing; the first use
of ``app`` reads the settings from the environment.
"""

import threading
from typing import Any, Final

from mailq.broker import celery_config
from mailq.settings import Settings
from mailq.settings_sources import load
from mailq.worker.host import BuildRuntime, Host, HostStep, MailqApp
from mailq.worker.savings import GatherEvents
from mailq.worker.tasks import register_tasks
from mailq.worker.wiring import build_runtime

_LOCK: Final = threading.Lock()
_MADE: Final[dict[str, MailqApp]] = {}


def make_app(settings: Settings, *, build: BuildRuntime = build_runtime) -> MailqApp:
    """Return an application that publishes, and serves when a worker is started on it."""
    app = MailqApp("mailq", set_as_current=False)
    app.conf.update(celery_config(settings))
    app.host = Host(settings, build=build)
    app.steps["worker"].add(HostStep)
    app.steps["consumer"].add(GatherEvents)
    register_tasks(app, app.host.runtime)
    return app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _LOCK:
        if name not in _MADE:
            _MADE[name] = make_app(load())
        return _MADE[name]
