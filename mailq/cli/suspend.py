"""``mailq suspend``, ``resume`` and ``suspensions``: stopping a destination, and letting it go on."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from mailq.cli.act import by, reason_option
from mailq.cli.session import Command, Duration, Session
from mailq.cli.text import printable, relative, table

if TYPE_CHECKING:
    from mailq.queue.suspend import Suspension

_HEAD = ("PATTERN", "SINCE", "ENDS", "BY", "REASON")


@click.command(cls=Command)
@click.argument("pattern", metavar="NEXTHOP|site:PATTERN")
@click.option("--for", "duration", type=Duration(), metavar="TIME", help="It resumes by itself then [default: never].")
@reason_option
@click.pass_obj
def suspend(session: Session, pattern: str, duration: timedelta | None, reason: str) -> None:
    """Stop a destination, for all workers: its mail is queued and rests.

    A nexthop as "mailq list" shows it, or site:mx.example.com for one of its
    hosts, site:*.example.com for all hosts below a domain, site:* for all
    mail. Sessions under way finish the message they are at.
    """
    until = None if duration is None else datetime.now(UTC) + duration
    stopped = session.queue().suspend(pattern, until=until, by=by(reason))
    session.emit(stopped, lambda: [f"{printable(stopped.pattern)} is suspended{_until(stopped)}."])


@click.command(cls=Command)
@click.argument("pattern", metavar="NEXTHOP|site:PATTERN")
@reason_option
@click.pass_obj
def resume(session: Session, pattern: str, reason: str) -> None:
    """Let mail flow again that was suspended under this very pattern."""
    lifted = session.queue().resume(pattern, by=by(reason))
    told = f"{printable(pattern)} is resumed." if lifted else f"{printable(pattern)} was not suspended."
    session.emit({"pattern": pattern, "lifted": lifted}, lambda: [told])


@click.command(cls=Command)
@click.pass_obj
def suspensions(session: Session) -> None:
    """List what is suspended now, by whom and why."""
    found = session.queue().suspensions()
    if session.json:
        for one in found:
            session.emit(one, lambda: ())
        return
    if not found:
        session.say("Nothing is suspended.")
        return
    now = datetime.now(UTC)
    rows = ((one.pattern, relative(one.since_at, now), _ends(one, now), one.actor, one.reason or "-") for one in found)
    for line in table(_HEAD, rows):
        click.echo(line)


def _until(one: "Suspension") -> str:
    return ' until "mailq resume"' if one.until_at is None else f" until {one.until_at:%Y-%m-%d %H:%M:%S %Z}"


def _ends(one: "Suspension", now: datetime) -> str:
    return "-" if one.until_at is None else relative(one.until_at, now)
