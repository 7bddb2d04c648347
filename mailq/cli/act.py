"""``mailq hold``, ``release``, ``retry``, ``cancel``, ``bounce``, ``expire``, ``reroute`` and ``purge``.

Each says how many recipients it is about to touch, and asks; a script says
``--yes``. Both counts are told in the end, since mail moves meanwhile, and the
audit keeps who it was and why.
"""

import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailq.cli.choose import is_chosen, selection_options
from mailq.cli.session import Command, Duration, Session
from mailq.cli.text import printable

if TYPE_CHECKING:
    from mailq.operating import By
    from mailq.queue.orders import Done, Preview

_PURGE_BATCH = 500
_WHICH = "say which: queue ids, --sender, --recipient, --domain, --nexthop or another choice (see --help), or --all"
_F = TypeVar("_F", bound=Callable[..., Any])


def is_interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def by(reason: str) -> "By":
    """Return who runs this program, and *reason*."""
    from mailq.operating import By  # noqa: PLC0415 - SQLAlchemy is slow to import, and --help need not wait for it

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return By(actor=f"{user}@{socket.gethostname()}", reason=reason)


def count(number: int, noun: str) -> str:
    """Return *number* with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def reason_option(function: _F) -> _F:
    """Give a command ``--reason``."""
    return click.option("--reason", default="", metavar="WORDS", help="Why; kept in the audit.")(function)


def _order_options(function: _F) -> _F:
    for decorate in (
        reason_option,
        click.option("--dry-run", is_flag=True, help="Say what would be touched, and touch nothing."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where nobody can be asked."),
        click.option("--all", "everything", is_flag=True, help="All recipients for which this is possible."),
        selection_options,
    ):
        function = decorate(function)
    return function


def _order(
    session: Session,
    verb: str,
    done: str,
    *,
    everything: bool,
    yes: bool,
    dry_run: bool,
    reason: str,
    nexthop_to: str | None = None,
    **criteria: Any,
) -> None:
    if not everything and not is_chosen(criteria):
        raise click.UsageError(_WHICH)
    from mailq.operating import Order  # noqa: PLC0415 - as above

    queue = session.queue()
    for queue_id in criteria["queue_ids"]:
        # A mistyped id must not look like success.
        queue.show(queue_id)
    preview = queue.preview(verb, **criteria)
    if dry_run:
        session.emit(preview, lambda: _preview_lines(preview, done))
        return
    _confirm(session, preview, done, yes=yes)
    order = Order(by=by(reason), counted=preview.count, everything=everything)
    to = () if nexthop_to is None else (nexthop_to,)
    result: Done = getattr(queue, verb)(*to, order, **criteria)
    session.emit(result, lambda: [_result_line(result, done)])


def _confirm(session: Session, preview: "Preview", done: str, *, yes: bool) -> None:
    """Tell what will be touched, and go on only where somebody agrees."""
    if yes:
        return
    if not is_interactive():
        touched = count(preview.count, "recipient")
        raise click.UsageError(f"{touched} would be {done}; nobody can be asked here: say --yes, or --dry-run to see")
    for line in _preview_lines(preview, done):
        session.say(line)
    click.confirm("Go on?", abort=True, err=True)


def _preview_lines(preview: "Preview", done: str) -> Iterator[str]:
    yield f"{count(preview.count, 'recipient')} would be {done}."
    if not preview.count:
        return
    yield "By state: " + ", ".join(f"{state.value} {number}" for state, number in preview.by_state.items())
    shown = [f"{printable(nexthop)} {number}" for nexthop, number in preview.by_nexthop.items()]
    more = preview.nexthops - len(shown)
    yield "By nexthop: " + ", ".join(shown) + (f", and {count(more, 'other')}" if more else "")
    yield "For example:"
    for one in preview.sample:
        yield f"  {one.queue_id}  {printable(one.address)}, {one.state.value}"


def _result_line(result: "Done", done: str) -> str:
    told = f"{count(result.touched, 'recipient')} {done}."
    if result.counted == result.touched:
        return told
    return f"{told} {result.counted} had been counted; the queue moved meanwhile."


def _verb(verb: str, done: str, text: str) -> click.Command:
    @click.pass_obj
    def run(session: Session, /, **options: Any) -> None:
        _order(session, verb, done, **options)

    return click.command(verb, cls=Command, help=text)(_order_options(run))


hold = _verb("hold", "held", 'Keep waiting recipients from being tried, until "mailq release".')
release = _verb("release", "released", "Let held and quarantined recipients be tried again.")
retry = _verb("retry", "due now", "Try waiting recipients now, whenever their next attempt was due.")
cancel = _verb("cancel", "cancelled", "Give waiting and held recipients up; the sender gets no report.")
bounce = _verb(
    "bounce",
    "returned",
    "Return waiting and held mail to its sender now.\n\nThe sender gets a failure report, with --reason in it.",
)
expire = _verb(
    "expire",
    "expired",
    "Give waiting and held mail up as if its time were over.\n\nThe sender gets a report of the last attempt.",
)


@click.command(cls=Command)
@_order_options
@click.option("--to", "nexthop_to", required=True, metavar="NEXTHOP", help="Such as '[relay.example.com]:587'.")
@click.pass_obj
def reroute(session: Session, /, **options: Any) -> None:
    """Send waiting and held mail another way than it was to go.

    What was tried before is due there now; attempts and history stay.
    """
    _order(session, "reroute", "rerouted", **options)


@click.command(cls=Command)
@click.option("--older-than", required=True, type=Duration(), help="Finished longer ago than this, such as 7d.")
@click.pass_obj
def purge(session: Session, older_than: timedelta) -> None:
    """Delete messages that are finished, with their history, and content that belongs to none.

    The workers do the same by themselves, for what ended longer than history_lifetime ago.
    """
    queue, purged = session.queue(), 0
    while True:
        number = queue.purge(older_than, limit=_PURGE_BATCH)
        purged += number
        if number < _PURGE_BATCH:
            break
        session.say(f"{purged} messages deleted so far …")
    orphans = queue.sweep_orphans()
    session.emit(
        {"messages": purged, "orphans": orphans},
        lambda: [
            f"{count(purged, 'message')} deleted." + f" {count(orphans, 'orphan')} at content_url." * bool(orphans)
        ],
    )
