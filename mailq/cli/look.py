"""``mailq list`` and ``mailq show``: what is in the queue, and what happened to it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mailq.cli.choose import is_chosen, selection_options
from mailq.cli.session import Command, Session
from mailq.cli.text import printable, relative, span, table, tls_line

if TYPE_CHECKING:
    from mailq.queue.views import AttemptView, MessageView, RecipientView

_PAGE = 500
_HEAD = ("QUEUE ID", "STATE", "RECIPIENT", "NEXTHOP", "TRIES", "NEXT", "LAST ANSWER")


@click.command("list", cls=Command)
@selection_options
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Most rows; 0 is no limit.")
@click.pass_obj
def list_command(session: Session, /, limit: int, **criteria: Any) -> None:
    """List recipients, oldest first: state, next attempt, and what the last server said.

    Without options, all of them; with several, those for which all hold.
    """
    shown, more = [], False
    for number, recipient in enumerate(_recipients(session, criteria)):
        if limit and number >= limit:
            more = True
            break
        if session.json:
            session.emit(recipient, lambda: ())
        else:
            shown.append(recipient)
    if session.json:
        return
    if not shown:
        session.say("No recipient matches." if is_chosen(criteria) else "The queue is empty.")
        return
    now = datetime.now(UTC)
    for line in table(_HEAD, (_row(recipient, now) for recipient in shown)):
        click.echo(line)
    if more:
        session.say(f"There are more than {limit}; --limit=0 lists all.")


def _recipients(session: Session, criteria: dict[str, Any]) -> Iterator["RecipientView"]:
    queue, after = session.queue(), 0
    while page := queue.find(limit=_PAGE, after=after, **criteria):
        yield from page
        after = page[-1].id


def _row(recipient: "RecipientView", now: datetime) -> tuple[str, ...]:
    return (
        recipient.queue_id,
        recipient.state.value,
        recipient.address,
        recipient.nexthop,
        str(recipient.attempts),
        relative(recipient.due_at, now) if recipient.state.value in {"queued", "deferred"} else "-",
        f"{recipient.last_status} {recipient.last_reason}".strip() or "-",
    )


@click.command(cls=Command)
@click.argument("queue_id", metavar="QUEUE-ID")
@click.pass_obj
def show(session: Session, queue_id: str) -> None:
    """Show a message: its envelope, and for each recipient every attempt and what comes next."""
    message = session.queue().show(queue_id)
    session.emit(message, lambda: _message_lines(message, datetime.now(UTC)))


def _message_lines(message: "MessageView", now: datetime) -> Iterator[str]:
    facts = {
        "Queue id": message.queue_id,
        "Sender": message.sender or "<> (the null sender)",
        "Size": f"{message.size_bytes} bytes",
        "Queued": f"{message.created_at:%Y-%m-%d %H:%M:%S %Z} ({relative(message.created_at, now)})",
        "Expires": "" if message.expires_at is None else f"{message.expires_at:%Y-%m-%d %H:%M:%S %Z}",
        "Priority": str(message.priority),
        "Class": message.mail_class,
        "Tenant": message.tenant,
        "Envelope id": message.envid,
        "Tags": ", ".join(f"{name}={value}" for name, value in message.tags.items()),
        "Key": message.idempotency_key or "",
        "TLS": "required" if message.require_tls else "optional" if message.tls_optional else "",
        "Report about": message.notice_of or "",
    }
    yield from (f"{name + ':':14}{printable(value)}" for name, value in facts.items() if value)
    for recipient in message.recipients:
        yield ""
        yield from _recipient_lines(recipient, now)


def _recipient_lines(recipient: "RecipientView", now: datetime) -> Iterator[str]:
    yield f"{printable(recipient.address)}: {recipient.state.value}"
    yield f"  by way of {printable(recipient.nexthop)}, {_tries(recipient.attempts)}"
    for attempt in recipient.history:
        yield from _attempt_lines(attempt)
    if recipient.uncertain_at is not None:
        yield f"  it may have been sent: nobody knows what came of the attempt {relative(recipient.uncertain_at, now)}"
    if recipient.fault:
        yield f"  mailq, a hook or a worker failed over it, in the last {_attempts_in_a_row(recipient.stumbles)}:"
        yield from (f"    {printable(line)}" for line in recipient.fault.splitlines())
    yield f"  next: {_next(recipient, now)}"


def _attempts_in_a_row(count: int) -> str:
    return "attempt" if count == 1 else f"{count} attempts"


def _tries(attempts: int) -> str:
    return "not tried yet" if attempts == 0 else "tried once" if attempts == 1 else f"tried {attempts} times"


def _attempt_lines(attempt: "AttemptView") -> Iterator[str]:
    took = span(attempt.finished_at - attempt.started_at)
    yield f"  {attempt.number}. {attempt.started_at:%Y-%m-%d %H:%M:%S}, took {took}: {attempt.outcome} {attempt.status}"
    for before in attempt.earlier:
        relay = before.get("relay") or "no server"
        yield f"     before, {printable(relay)}: {printable(before.get('reason', ''))}"
    yield f"     server: {printable(attempt.relay) or 'none reached'}"
    if attempt.tls:
        yield f"     TLS: {printable(tls_line(attempt.tls))}"
    if attempt.reason:
        yield f"     reason: {printable(attempt.reason)}"
    if attempt.reply_text:
        yield f"     it said: {printable(attempt.reply_text)}"
    if attempt.milliseconds:
        yield f"     times: {', '.join(f'{part} {taken} ms' for part, taken in attempt.milliseconds.items())}"


def _next(recipient: "RecipientView", now: datetime) -> str:
    match recipient.state.value:
        case "queued" | "deferred":
            due = recipient.due_at
            when = "as soon as a worker is free" if due is None or due <= now else relative(due, now)
            return f"attempt {recipient.attempts + 1}, {when}"
        case "held":
            return "nothing until somebody releases it: mailq release"
        case "quarantined":
            return "nothing until somebody has looked at it: mailq release or mailq retry tries it again"
        case "active":
            return "being delivered right now"
        case _:
            return f"nothing; it ended {relative(recipient.finished_at, now)}"
