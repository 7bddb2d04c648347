"""Flower over the broker, for looking only: who works, on which nexthop, and what came of it.

Flower learns of tasks from the events that workers send: a task's argument is
a nexthop, its result counts of outcomes. Addresses and content are in neither.

Invariants:
    Nothing can be done from here, whatever the environment says: what is to be done to the queue has commands.
    Nobody looks without the password, the page of metrics included, unless that was asked for on loopback.

Source: celery.md §2.12, §6 pitfalls 26 and 28.
"""

import contextlib
import ipaddress
import signal
from dataclasses import dataclass
from typing import Any, Final

from mailq.broker import is_memory, make_celery
from mailq.errors import ConfigError
from mailq.settings import Settings

COLUMNS: Final = "args,result,state,received,runtime,worker"
"""Of the page of tasks. Source: Flower's option tasks_columns."""
TASKS_KEPT: Final = 10_000
"""In Flower's memory; some 2 kB each."""
_INSPECT_MILLISECONDS: Final = 5000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerPlace:
    """Where Flower is shown, and what it keeps.

    Attributes:
        address: IP address, or ``localhost``.
        port: 0 is any free one.
        login: Ask for the password; without it, only on loopback.
        url_prefix: Of every path, for a proxy in front; empty: none.
        state_file: Keeps tasks over a restart; empty: they are forgotten.
    """

    address: str = "127.0.0.1"
    port: int = 5555
    login: bool = True
    url_prefix: str = ""
    state_file: str = ""


def check_flower(settings: Settings, place: FlowerPlace) -> None:
    """Do nothing where Flower may be shown at *place*.

    Raises:
        ConfigError: It may not; the text says what to do.
    """
    if is_memory(settings.broker_url):
        raise ConfigError("Flower looks at a broker that processes share, and memory:// is none; set broker_url")
    if place.login:
        if not (settings.flower_user and settings.flower_password):
            raise ConfigError(
                "Flower has no password: set MAILQ_FLOWER_PASSWORD, or MAILQ_FLOWER_PASSWORD_FILE to a file that holds "
                "it; on loopback, --no-login does without"
            )
        if ":" in settings.flower_user:
            raise ConfigError("flower_user may not contain a colon, which ends the name in a log-in over HTTP")
    elif not _is_loopback(place.address):
        raise ConfigError(f"without a log-in Flower is shown on loopback only, not at {place.address}")


def run_flower(settings: Settings, place: FlowerPlace) -> None:
    """Show Flower until TERM or Ctrl-C.

    Raises:
        ConfigError: It may not be shown there, cannot listen there, or is not installed.
    """
    check_flower(settings, place)
    try:
        from flower import command, urls  # noqa: PLC0415 - an extra
        from flower.app import Flower  # noqa: PLC0415 - as above
        from flower.views import monitor  # noqa: PLC0415 - as above
        from tornado import options as tornado_options  # noqa: PLC0415 - comes with it
        from tornado import web  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ConfigError(f"Flower needs the package {error.name}; install mailq[flower]") from error
    options = tornado_options.options
    for name, value in flower_options(settings, place).items():
        setattr(options, name, value)
    command.setup_logging()
    # Flower shows these to everybody, and with them the names of hosts.
    closed = type("ClosedMetrics", (monitor.Metrics,), {"get": web.authenticated(monitor.Metrics.get)})
    urls.handlers.insert(0, (r"/metrics", closed))
    page = Flower(capp=make_celery(settings), options=options, **urls.settings)
    try:
        port = page.start_http_server()
    except OSError as error:
        raise ConfigError(f"Flower cannot listen at {place.address}:{place.port}: {error.strerror}") from error
    command.logger.info("Flower is at http://%s:%d%s/", place.address, port, place.url_prefix)
    _serve(page)


def flower_options(settings: Settings, place: FlowerPlace) -> dict[str, Any]:
    """Return Flower's options for *place*; none is read from the environment or a file."""
    return {
        "address": place.address,
        "port": place.port,
        "read_only": True,
        "basic_auth": [f"{settings.flower_user}:{settings.flower_password}"] if place.login else [],
        "url_prefix": place.url_prefix,
        "tasks_columns": COLUMNS,
        "max_tasks": TASKS_KEPT,
        "inspect_timeout": _INSPECT_MILLISECONDS,
        "persistent": bool(place.state_file),
        "db": place.state_file,
    }


def _serve(page: Any) -> None:
    loop = page.io_loop.asyncio_loop
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, page.io_loop.stop)
    with contextlib.suppress(KeyboardInterrupt):
        page.start()
    page.stop()


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
