"""``mailq sendmail``: the interface that programs have known since 1981.

Understands what mail clients, cron and frameworks pass to
``/usr/sbin/sendmail``; options that only made sense there are accepted and
have no effect. What is not queued for a passing reason ends with the exit
code that makes the caller try again.

Source: sendmail(1) of Postfix.
"""

import getpass
import os
import sys
from collections.abc import Sequence
from email.utils import formataddr

import click

from mailq.cli.exit_codes import ExitCode
from mailq.cli.session import Command, Session
from mailq.content import header_fields, normalise_line_ends
from mailq.errors import EnvelopeError, InfrastructureError
from mailq.mime import header_recipients


def _ignored(context: click.Context, _parameter: click.Parameter, value: Sequence[str]) -> None:
    # -oi and -i are the same: a line with a single dot does not end the message.
    if "i" in value:
        context.meta["mailq.dots"] = True


@click.command(cls=Command)
@click.argument("recipients", nargs=-1)
@click.option("-t", "read_recipients", is_flag=True, help="Take recipients from To, Cc and Bcc as well.")
@click.option("-i", "dots", is_flag=True, help="A line with a single dot does not end the message.")
@click.option("-f", "-r", "sender", help="Envelope sender.")
@click.option("-F", "full_name", help="The sender's name, for a missing From header.")
@click.option("-N", "notify", help="When to report: never, or success, failure, delay.")
@click.option("-R", "ret", help="What failure reports return: full or hdrs.")
@click.option("-V", "envid", default="", help="Envelope id.")
@click.option("-b", "mode", type=click.Choice(["m"]), help="Only -bm, to deliver mail, which is the default.")
@click.option("-o", "options", multiple=True, hidden=True, callback=_ignored, expose_value=False)
@click.option("-X", "traffic", multiple=True, help="-XV, or -XV with two delimiters: an envelope sender by recipient.")
@click.option("-e", "-B", "-L", "-O", "-h", "-q", multiple=True, hidden=True, expose_value=False)
@click.pass_context
def sendmail(
    context: click.Context,
    recipients: Sequence[str],
    *,
    read_recipients: bool,
    dots: bool,
    sender: str | None,
    full_name: str | None,
    notify: str | None,
    ret: str | None,
    envid: str,
    traffic: Sequence[str],
    mode: str | None,  # noqa: ARG001 - only its presence is checked
) -> int:
    """Queue a message from standard input, as sendmail does.

    For a program's setting of sendmail's path: "mailq sendmail -t -i".
    """
    session = context.find_object(Session) or Session()
    raw = sys.stdin.buffer.read()
    if not dots and not context.meta.get("mailq.dots"):
        raw = _up_to_dot(raw)
    try:
        queue = session.queue()
        host = session.settings.myhostname or os.uname().nodename
        message = _with_author(raw, sender or f"{getpass.getuser()}@{host}", full_name)
        listed = [*recipients, *(header_recipients(message) if read_recipients else ())]
        if not listed:
            raise EnvelopeError("there is no recipient; give addresses, or -t to read them from the message")
        queue.send(
            message,
            sender=sender,
            recipients=listed,
            notify=notify.split(",") if notify else (),
            ret=ret,
            envid=envid,
            verp=next((given[1:] or True for given in traffic if given.startswith("V")), False),
        )
    except InfrastructureError as error:
        click.echo(f"mailq: {error}", err=True)
        return ExitCode.TEMPORARY
    return ExitCode.OK


def _up_to_dot(raw: bytes) -> bytes:
    text = normalise_line_ends(raw)
    return text[: text.index(b"\r\n.\r\n") + 2] if b"\r\n.\r\n" in text else text


def _with_author(raw: bytes, sender: str, full_name: str | None) -> bytes:
    """Return *raw* with a From header, which sendmail has always supplied."""
    if not raw.strip() or raw[:1] in {b"\n", b"\r"} or any(name == "from" for name, _ in header_fields(raw)):
        return raw
    return f"From: {formataddr((full_name or '', sender))}\r\n".encode() + raw
