"""``mailq hold``, ``release``, ``retry``, ``cancel`` and ``purge``: what people do to the queue."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from mailq.cli.choose import selection_options
from mailq.cli.session import Command, Duration, Session

if TYPE_CHECKING:
    from mailq.api import Queue

_PURGE_BATCH = 500


def _act(
    session: Session,
    act: Callable[["Queue"], Callable[..., int]],
    done: str,
    *,
    everything: bool,
    criteria: dict[str, Any],
) -> None:
    if not everything and not any(value is not None and value != () for value in criteria.values()):
        raise click.UsageError("say which: queue ids, --sender, --recipient, --domain, --nexthop, or --all")
    queue = session.queue()
    for queue_id in criteria["queue_ids"]:
        # A mistyped id must not look like success.
        queue.show(queue_id)
    count = act(queue)(**criteria)
    noun = "recipient" if count == 1 else "recipients"
    session.emit({"recipients": count}, lambda: [f"{count} {noun} {done}."])


_all = click.option("--all", "everything", is_flag=True, help="All recipients for which this is possible.")


@click.command(cls=Command)
@selection_options
@_all
@click.pass_obj
def hold(session: Session, /, *, everything: bool, **criteria: Any) -> None:
    """Keep waiting recipients from being tried, until "mailq release"."""
    _act(session, lambda queue: queue.hold, "held", everything=everything, criteria=criteria)


@click.command(cls=Command)
@selection_options
@_all
@click.pass_obj
def release(session: Session, /, *, everything: bool, **criteria: Any) -> None:
    """Let held recipients be tried again."""
    _act(session, lambda queue: queue.release, "released", everything=everything, criteria=criteria)


@click.command(cls=Command)
@selection_options
@_all
@click.pass_obj
def retry(session: Session, /, *, everything: bool, **criteria: Any) -> None:
    """Try waiting recipients now, whenever their next attempt was due."""
    _act(session, lambda queue: queue.retry, "due now", everything=everything, criteria=criteria)


@click.command(cls=Command)
@selection_options
@_all
@click.pass_obj
def cancel(session: Session, /, *, everything: bool, **criteria: Any) -> None:
    """Give waiting and held recipients up; the sender gets no report."""
    _act(session, lambda queue: queue.cancel, "cancelled", everything=everything, criteria=criteria)


@click.command(cls=Command)
@click.option("--older-than", required=True, type=Duration(), help="Finished longer ago than this, such as 7d.")
@click.pass_obj
def purge(session: Session, older_than: timedelta) -> None:
    """Delete messages that are finished, with their history."""
    queue, purged = session.queue(), 0
    while True:
        count = queue.purge(older_than, limit=_PURGE_BATCH)
        purged += count
        if count < _PURGE_BATCH:
            break
        session.say(f"{purged} messages deleted so far …")
    noun = "message" if purged == 1 else "messages"
    session.emit({"messages": purged}, lambda: [f"{purged} {noun} deleted."])
