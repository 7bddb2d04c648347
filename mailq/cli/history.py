"""``mailq history``: which attempts were made, and what was said, the newest first."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from mailq.cli.session import Command, Duration, Session
from mailq.cli.text import printable, table

if TYPE_CHECKING:
    from mailq.queue.history import HistoryEntry

_PAGE = 200
_HEAD = ("TIME", "QUEUE ID", "OUTCOME", "RECIPIENT", "SERVER", "ANSWER")
_OUTCOMES = ("sent", "deferred", "bounced", "expired")


@click.command(cls=Command)
@click.option("--recipient", help="At this address.")
@click.option("--domain", help="At an address in this domain.")
@click.option("--sender", help="From this envelope sender; '' is the null sender.")
@click.option("--server", help="With this server, by name or address; .example.com is every name under it.")
@click.option("--code", type=int, help="Answered with this code, such as 550.")
@click.option("--status", help="With this enhanced status, such as 4.7.1.")
@click.option("--text", help="With this in the answer or the reason.")
@click.option("--outcome", type=click.Choice(_OUTCOMES), help="With this outcome.")
@click.option("--queue-id", help="Of this message.")
@click.option("--since", type=Duration(), help="Not longer ago than this, such as 2h.")
@click.option("--until", type=Duration(), help="Longer ago than this.")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Most rows; 0 is no limit.")
@click.option("--transcript", is_flag=True, help="Show what was said, where that was kept.")
@click.pass_obj
def history(session: Session, /, *, limit: int, transcript: bool, **criteria: Any) -> None:
    """Search past attempts, the newest first; with several options, those for which all hold.

    A search by --text, --server or --sender reads from the newest attempt on until it has found enough; --since
    keeps it short.
    """
    shown, more = [], False
    for number, entry in enumerate(_entries(session, criteria, page=min(limit + 1, _PAGE) if limit else _PAGE)):
        if limit and number >= limit:
            more = True
            break
        if session.json:
            session.emit(entry, lambda: ())
        elif transcript:
            _print(entry)
        shown.append(entry)
    if session.json:
        return
    if not shown:
        session.say("No attempt matches." if any(value is not None for value in criteria.values()) else "No attempts.")
    elif not transcript:
        for line in table(_HEAD, map(_row, shown)):
            click.echo(line)
    if more:
        session.say(f"There are more than {limit}; --limit=0 lists all.")


def _entries(session: Session, criteria: dict[str, Any], *, page: int) -> "Iterator[HistoryEntry]":
    queue, before = session.queue(), None
    while found := queue.history(limit=page, before=before, **criteria):
        yield from found
        before = found[-1].id


def _row(entry: "HistoryEntry") -> tuple[str, ...]:
    attempt = entry.attempt
    return (
        f"{attempt.finished_at:%Y-%m-%d %H:%M:%S}",
        entry.queue_id,
        attempt.outcome,
        entry.recipient,
        attempt.relay or "-",
        attempt.reply_text or f"{attempt.status} {attempt.reason}",
    )


def _print(entry: "HistoryEntry") -> None:
    click.echo("  ".join(printable(cell) for cell in _row(entry)))
    for part, milliseconds in entry.attempt.milliseconds.items():
        click.echo(f"    {part}: {milliseconds} ms")
    for line in entry.attempt.transcript:
        click.echo(f"    {printable(line)}")
