"""``mailq sink``: a mail server for trials, which takes all mail and keeps none of it.

A name server beside it knows every domain at the sink's addresses, so that
workers with ``nameservers`` and ``tcp_port`` set to the two bring all mail
here by the way it takes in production, lookups and all.

Invariant: it keeps no content; only a count and the times.
"""

import threading
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from mailq.cli.session import Command, Duration, Session
from mailq.errors import ConfigError
from mailq.stopping import stop_signals

if TYPE_CHECKING:
    from mailq.testing.counting_receiver import CountingReceiver

_TELL_SECONDS = 10.0
_PORTS = click.IntRange(0, 65_535)


@click.command(cls=Command)
@click.option("--listen", multiple=True, default=("127.0.0.1",), metavar="ADDRESS", help="Take mail here; repeatable.")
@click.option("--port", type=_PORTS, default=2525, show_default=True, help="Of the mail server; 0: a free one.")
@click.option(
    "--dns-port", type=_PORTS, default=5353, show_default=True, help="Of the name server, at the first address."
)
@click.option("--think", type=Duration(), default="0", metavar="TIME", help="Wait before taking each message.")
@click.pass_obj
def sink(session: Session, listen: tuple[str, ...], port: int, dns_port: int, think: timedelta) -> None:
    """Take all mail of a trial, and keep none of it, until stopped by TERM or Ctrl-C.

    Every domain leads here for workers with the settings that are printed
    first. How much was taken is told every ten seconds, and in the end.
    """
    from mailq.testing.counting_receiver import CountingReceiver  # noqa: PLC0415 - of no use to other commands
    from mailq.testing.dnsd import DnsServer  # noqa: PLC0415 - as above; DNS is slow to import

    receiver = CountingReceiver(listen, think_seconds=think.total_seconds(), port=port, sampled=False)
    names = DnsServer({}, fallback={"A": list(listen)}, address=listen[0], port=dns_port)
    with ExitStack() as running:
        stop = running.enter_context(stop_signals())
        try:
            running.enter_context(receiver)
            running.enter_context(names)
        except OSError as error:
            raise ConfigError(f"the sink cannot listen at {', '.join(listen)}: {error.strerror}") from error
        found = {"nameservers": names.nameserver, "tcp_port": receiver.port, "inet_protocols": "ipv4"}
        session.emit(found, lambda: [f"MAILQ_{name.upper()}={value}" for name, value in found.items()])
        _tell(session, receiver, stop)


def _tell(session: Session, receiver: "CountingReceiver", stop: threading.Event) -> None:
    told = -1
    stopped = False
    while not stopped:
        stopped = stop.wait(_TELL_SECONDS if told >= 0 else 0)
        taken = sum(map(len, receiver.taken.values()))
        if stopped or taken != told:
            told = taken
            most = sum(receiver.most.values())
            session.emit({"messages": taken, "most_sessions": most}, lambda: [_line(taken, most)])  # noqa: B023 - called at once


def _line(taken: int, most: int) -> str:
    return f"{taken} messages taken, over at most {most} sessions at a time."
