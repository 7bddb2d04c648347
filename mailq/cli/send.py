"""``mailq send``: queue messages from files, standard input or the command line.

Several messages are all checked before the first one is queued, so that a
run that fails over a message can be repeated once it is corrected.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailq.cli.session import Command, Duration, Session
from mailq.errors import ContentError, EnvelopeError, RefusedError

if TYPE_CHECKING:
    from mailq.submission import Submission

_BATCH = 100
_STDIN = "-"
_LARGE_BYTES = 1_048_576


def _tags(_context: click.Context, _parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    pairs = [tag.partition("=") for tag in given]
    if any(not name or not equals for name, equals, _ in pairs):
        raise click.BadParameter("write NAME=VALUE")
    return {name: value for name, _, value in pairs}


@click.command(cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(allow_dash=True))
@click.option("-f", "--from", "--sender", "sender", help="Envelope sender; '' is the null sender [default: From].")
@click.option("--to", "recipients", multiple=True, metavar="ADDRESS", help="Recipient; repeatable.")
@click.option("-t", "--read-recipients", is_flag=True, help="Take recipients from To, Cc and Bcc.")
@click.option("--subject", help="Compose a message with this subject, to all of --to.")
@click.option("--text", help="Compose a message with this text.")
@click.option("--html", help="Compose a message with this HTML.")
@click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 goes first, 9 last.")
@click.option("--class", "mail_class", default="", metavar="NAME", help="Kind of mail; may choose a retry schedule.")
@click.option("--tenant", default="", metavar="NAME", help="On whose behalf; tenants take turns.")
@click.option("--after", "not_before", type=Duration(), help="First attempt after this time, such as 2h.")
@click.option("--expires", type=Duration(), help="Give up after this time, such as 1d.")
@click.option("--notify", multiple=True, type=click.Choice(["NEVER", "SUCCESS", "FAILURE", "DELAY"], False))
@click.option("--ret", type=click.Choice(["FULL", "HDRS"], False), help="What failure reports return.")
@click.option("--envid", default="", help="Named in reports.")
@click.option("--verp", is_flag=True, help="An envelope sender for each recipient.")
@click.option("--verp-delimiters", metavar="XY", help="The same, with two characters other than the usual ones.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", callback=_tags, help="Kept; repeatable.")
@click.option("--require-tls", is_flag=True, help="Only to servers that prove who they are and offer REQUIRETLS.")
@click.option("--key", "idempotency_key", help="Queue this message once only, however often this is run.")
@click.pass_obj
def send(
    session: Session, /, files: Sequence[str], *, subject: str | None, text: str | None, html: str | None, **rest: Any
) -> None:
    """Queue messages from FILEs (.eml), or from standard input; print a queue id for each.

    Without a FILE, --subject, --text and --html compose one.
    """
    from mailq.submission import Submission  # noqa: PLC0415 - as for the queue

    options = _options(rest)
    composed: dict[str, Any] = {
        name: value for name, value in (("subject", subject), ("text", text), ("html", html)) if value
    }
    if composed and files:
        raise click.UsageError("give either FILEs, or --subject, --text and --html")
    if options["idempotency_key"] and len(files) > 1:
        raise click.UsageError("--key names one message; send the files one at a time")
    if composed:
        to = options.pop("recipients")
        _queue_one(session, Submission(to=to or (), **composed, **options))
    elif len(files) > 1:
        _queue_files(session, files, options)
    else:
        _queue_one(session, Submission(**message_from(files[0] if files else _STDIN), **options))


def _options(rest: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(rest)
    options["verp"] = options.pop("verp_delimiters") or options["verp"]
    if options.pop("read_recipients"):
        if options["recipients"]:
            raise click.UsageError("give either --to or --read-recipients")
        options["recipients"] = None
    elif not options["recipients"]:
        raise EnvelopeError("there is no recipient; give --to ADDRESS, or -t to read them from the message")
    return options


def message_from(name: str) -> dict[str, Any]:
    """Return what makes the file *name*, or standard input for ``-``, the message: small ones are read at once.

    Raises:
        ContentError: It cannot be read.
    """
    if name == _STDIN:
        if sys.stdin.isatty():
            click.echo("Type the message, header first; end with Ctrl-D.", err=True)
        return {"content": sys.stdin.buffer}
    path = Path(name)
    try:
        if path.stat().st_size > _LARGE_BYTES:
            return {"content": path}
        return {"message": path.read_bytes()}
    except OSError as error:
        raise ContentError(f"{name}: {error.strerror}") from error


def _queue_one(session: Session, submission: "Submission") -> None:
    _print_id(session, session.queue().send_many([submission])[0])


def _print_id(session: Session, queue_id: str, **more: str) -> None:
    session.emit({"queue_id": queue_id, **more}, lambda: ["  ".join([queue_id, *more.values()])])


def _queue_files(session: Session, files: Sequence[str], options: Mapping[str, Any]) -> None:
    queue = session.queue()
    with _progress(session, files, "Checking") as names:
        for name in names:
            for submission in _submissions([name], options):
                try:
                    queue.check(submission)
                except RefusedError as error:
                    raise type(error)(f"{name}: {error}; nothing was queued") from error
    batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]
    with _progress(session, batches, "Queueing") as remaining:
        for batch in remaining:
            for name, queue_id in zip(batch, queue.send_many(_submissions(batch, options)), strict=True):
                _print_id(session, queue_id, file=name)


def _submissions(names: Sequence[str], options: Mapping[str, Any]) -> "Iterator[Submission]":
    from mailq.submission import Submission  # noqa: PLC0415 - as for the queue

    for name in names:
        yield Submission(**message_from(name), **options)


def _progress(session: Session, items: Sequence[Any], label: str) -> AbstractContextManager[Any]:
    if session.json or not sys.stderr.isatty():
        return nullcontext(items)
    return click.progressbar(items, label=label, file=sys.stderr)
