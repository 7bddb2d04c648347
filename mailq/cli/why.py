"""``mailq explain`` and ``mailq audit``: why something is as it is, and who did it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from mailq.cli.session import Command, Duration, Session, plain
from mailq.cli.text import printable, relative, table

if TYPE_CHECKING:
    from mailq.queue.audit import AuditEntry
    from mailq.queue.explain import Explanation

_HEAD = ("WHEN", "BY", "ACTION", "COUNTED", "TOUCHED", "WHAT")


@click.command(cls=Command)
@click.argument("queue_id", metavar="QUEUE-ID")
@click.pass_obj
def explain(session: Session, queue_id: str) -> None:
    """Say why each recipient of a message is still queued, and what happens next, and when."""
    for number, one in enumerate(session.queue().explain(queue_id)):
        if number and not session.json:
            click.echo()
        session.emit(one, lambda one=one: _explanation_lines(one))  # type: ignore[misc]  # a default binds the loop's value


def _explanation_lines(one: "Explanation") -> Iterator[str]:
    yield printable(one.sentence)
    yield f"  next: {printable(one.next)}"
    if one.warns_at is not None:
        yield f"  the sender is told of the delay after {one.warns_at:%Y-%m-%d %H:%M:%S %Z}"
    for name, value in one.numbers.items():
        told = ", ".join(map(str, value)) if isinstance(value, list) else str(plain_text(value))
        yield f"  {name.replace('_', ' ')}: {printable(told) or '-'}"


def plain_text(value: object) -> object:
    """Return *value* as people read it."""
    return f"{value:%Y-%m-%d %H:%M:%S %Z}" if isinstance(value, datetime) else plain(value)


@click.command(cls=Command)
@click.option("--since", type=Duration(), metavar="TIME", help="Given within this time, such as 1d [default: ever].")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most entries.")
@click.pass_obj
def audit(session: Session, since: timedelta | None, limit: int) -> None:
    """List who did what to the queue, and why, the latest first."""
    now = datetime.now(UTC)
    found = session.queue().audit(since=None if since is None else now - since, limit=limit)
    if session.json:
        for one in found:
            session.emit(one, lambda: ())
        return
    if not found:
        session.say("Nothing is on record.")
        return
    for line in table(_HEAD, (_row(one, now) for one in found)):
        click.echo(line)


def _row(one: "AuditEntry", now: datetime) -> tuple[str, ...]:
    what = {**one.arguments, **one.selector}
    words = ", ".join(f"{name}={value}" for name, value in what.items() if value is not None) or "everything"
    cut_off = "" if one.finished_at is not None else " (not finished)"
    return (
        relative(one.at, now),
        one.actor,
        one.action,
        "-" if one.counted is None else str(one.counted),
        f"{one.touched}{cut_off}",
        words + (f": {one.reason}" if one.reason else ""),
    )
