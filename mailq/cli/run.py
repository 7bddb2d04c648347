"""``mailq worker``, ``migrate`` and ``dev``: what makes the queue run."""

import time
from collections.abc import Callable
from datetime import timedelta

import click

from mailq.cli.session import Command, Duration, Session
from mailq.errors import DatabaseUnavailableError, SchemaError

_LOOK_SECONDS = 0.5


@click.command(cls=Command)
@click.option(
    "-c", "--concurrency", type=click.IntRange(min=1), help="Sessions of each process, instead of worker_concurrency."
)
@click.option("-P", "--processes", type=click.IntRange(min=1), help="Instead of worker_processes.")
@click.option("--loglevel", default="INFO", show_default=True, help="Of the worker's log.")
@click.option("-n", "--name", default="", help="Of this worker, where a host has several.")
@click.pass_obj
def worker(session: Session, concurrency: int | None, processes: int | None, loglevel: str, name: str) -> int:
    """Deliver mail until stopped by TERM or Ctrl-C.

    Sessions are finished first; their timeouts bound how long that takes.
    A worker has a process for each processor that it may use, four at most;
    one that dies is begun anew, and its mail is taken up within lease_time.
    """
    settings = session.settings
    from mailq.worker.main import run_worker  # noqa: PLC0415 - Celery is slow to import

    session.let_go()
    return run_worker(settings, concurrency=concurrency, processes=processes, loglevel=loglevel, name=name)


@click.command(cls=Command)
@click.option("--revision", default="head", show_default=True, help="Bring the schema to this revision.")
@click.option("--check", is_flag=True, help="Change nothing; fail when a migration is needed.")
@click.option("--wait", type=Duration(), default="0", metavar="TIME", help="Try for so long before failing: 5m.")
@click.pass_obj
def migrate(session: Session, revision: str, wait: timedelta, *, check: bool) -> None:
    """Create the database's tables, or bring them up to date.

    With --check and --wait it ends once another has done that.
    """
    store = session.queue().store
    _wait_for(store.check_schema if check else store.schema_revision, wait)
    before = store.schema_revision()
    if not check:
        store.migrate(revision)
    after = store.schema_revision()
    text = f"The schema is up to date: {after}." if before == after else f"Migrated from {before} to {after}."
    session.emit({"before": before, "after": after}, lambda: [text])


def _wait_for(look: Callable[[], object], patience: timedelta) -> None:
    """Repeat *look* while the database or its schema is not there yet."""
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            look()
        except (DatabaseUnavailableError, SchemaError):
            if time.monotonic() >= deadline:
                raise
        else:
            return
        time.sleep(_LOOK_SECONDS)


@click.command(cls=Command)
@click.option("--internet", is_flag=True, help="Deliver for real instead of catching everything.")
@click.option("--deliver-waiting", is_flag=True, help="Also catch mail that waits in the queue from before.")
@click.pass_obj
def dev(session: Session, *, internet: bool, deliver_waiting: bool) -> None:
    """Run everything in this process, and catch all mail on loopback.

    Whatever applications on this machine put into the queue is delivered to
    a mail server inside this process, which prints it; nothing leaves the
    machine. Where relayhost or network is set, or with --internet, mail is
    delivered as they say. The queue is the configured SQLite file.
    """
    from mailq.cli.development import run_development  # noqa: PLC0415 - Celery is slow to import

    run_development(session, internet=internet, deliver_waiting=deliver_waiting)
