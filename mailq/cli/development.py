"""The worker of ``mailq dev``, and the mail server that catches what it delivers.

Everything is caught by giving the worker a name server that knows every name
at this machine, and the catching server's port; so mail takes the same way
as in production, MX lookup and all. As a second lock, the setting ``network``
keeps the worker from connecting to any address outside this machine.
"""

import email
import email.policy
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from mailq.cli.session import Session
from mailq.cli.text import printable
from mailq.errors import ConfigError
from mailq.settings import Settings
from mailq.stopping import stop_signals
from mailq.testing.dnsd import DnsServer
from mailq.testing.sink import caught
from mailq.testing.smtpd import Delivery, ScriptedSmtpServer
from mailq.worker.embedded import embedded

if TYPE_CHECKING:
    from mailq.api import Queue

_LOOK_SECONDS = 0.1
_WAITING = ("queued", "deferred")
_BODY_LINES = 20


def run_development(session: Session, *, internet: bool, deliver_waiting: bool) -> None:
    """Run a worker, and by default the catching server, until TERM or Ctrl-C.

    Raises:
        ConfigError: The database is not SQLite, or mail waits in it that was not meant to be caught.
    """
    settings = replace(session.settings, broker_url="memory://")
    if not settings.database_url.startswith("sqlite"):
        raise ConfigError("mailq dev uses a SQLite file, so that it never takes a server's mail; unset database_url")
    catching = not internet and not {"relayhost", "network"} & set(session.loaded.sources)
    queue = session.queue()
    if catching and not deliver_waiting:
        _refuse_waiting(queue)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        server: ScriptedSmtpServer | None = None
        if catching:
            server = stack.enter_context(ScriptedSmtpServer())
            dns = stack.enter_context(DnsServer({}, fallback={"A": ["127.0.0.1"]}))
            settings = caught(settings, dns.nameserver, server.port)
        stack.enter_context(embedded(settings))
        _introduce(session, settings, caught=catching)
        _print_deliveries(session, server, stop)


def _refuse_waiting(queue: "Queue") -> None:
    waiting = queue.find(limit=1, states=_WAITING)
    if waiting:
        raise ConfigError(
            f"mail waits in the queue, such as {waiting[0].queue_id} to {waiting[0].address}, and would be caught "
            "instead of delivered; --deliver-waiting does that, MAILQ_DATABASE_URL names another queue"
        )


def _introduce(session: Session, settings: Settings, *, caught: bool) -> None:
    where = "All mail is caught here and printed." if caught else "Mail is DELIVERED as the settings say."
    session.say(f"mailq is ready. {where} Stop with Ctrl-C.")
    session.say(f"Queue: {settings.database_url}")
    session.say("Try, in another terminal:")
    session.say("  mailq send --from you@example.org --to ann@example.org --subject Hello --text 'It works.'")


def _print_deliveries(session: Session, server: ScriptedSmtpServer | None, stop: threading.Event) -> None:
    printed = 0
    while not stop.wait(_LOOK_SECONDS):
        for delivery in server.deliveries[printed:] if server is not None else ():
            printed += 1
            _print_delivery(session, delivery)


def _print_delivery(session: Session, delivery: Delivery) -> None:
    message = email.message_from_bytes(delivery.content, policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    text = "" if body is None else str(body.get_content())
    seen = {
        "sender": delivery.sender,
        "recipients": list(delivery.recipients),
        "subject": str(message["Subject"] or ""),
        "size_bytes": len(delivery.content),
        "text": text,
    }
    session.emit(seen, lambda: _delivery_lines(seen, text))


def _delivery_lines(seen: dict[str, object], text: str) -> Iterator[str]:
    recipients = seen["recipients"]
    to = ", ".join(recipients) if isinstance(recipients, list) else ""
    yield f"── {printable(str(seen['sender'])) or '<>'} → {printable(to)} ({seen['size_bytes']} bytes)"
    yield f"   {printable(str(seen['subject']))}"
    lines = text.splitlines()
    yield from (f"   │ {printable(line)}" for line in lines[:_BODY_LINES])
    if len(lines) > _BODY_LINES:
        yield f"   │ … {len(lines) - _BODY_LINES} more lines"
