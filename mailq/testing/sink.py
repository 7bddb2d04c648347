"""A sink: one mail server on loopback that gets all mail, whatever its domain.

Everything is caught by giving the worker a name server that knows every name
at this machine, and the server's port; so mail takes the same way as in
production, MX lookup and all. As a second lock, the setting ``network`` keeps
the worker from connecting to any address outside this machine.

    with Sink() as sink, embedded(sink.settings(settings)):
        queue.send(...)
        (delivery,) = sink.wait_for(1)
"""

import email
import email.policy
from contextlib import ExitStack
from dataclasses import replace
from email.message import EmailMessage
from types import TracebackType
from typing import Self

from mailq.settings import Settings
from mailq.testing.dnsd import DnsServer
from mailq.testing.smtpd import Delivery, Script, ScriptedSmtpServer


class Sink:
    """Catches for the time of a ``with`` block.

    Args:
        script: What the server says; None: it takes every message.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.server = ScriptedSmtpServer(script)
        self._nameserver = ""
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as running:
            running.enter_context(self.server)
            dns = running.enter_context(DnsServer({}, fallback={"A": ["127.0.0.1"]}))
            self._nameserver = dns.nameserver
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @property
    def deliveries(self) -> list[Delivery]:
        """Every message taken so far, oldest first."""
        return self.server.deliveries

    @property
    def messages(self) -> list[EmailMessage]:
        """The same, as messages of Python's email package."""
        return [decoded(one.content) for one in self.deliveries]

    def wait_for(self, deliveries: int, *, timeout_seconds: float = 10.0) -> list[Delivery]:
        """Return the deliveries as soon as there are that many.

        Raises:
            TimeoutError: There were fewer after *timeout_seconds*.
        """
        return self.server.wait_for(deliveries, timeout_seconds=timeout_seconds)

    def settings(self, settings: Settings) -> Settings:
        """Return *settings* for a worker whose mail all comes here."""
        return caught(settings, self._nameserver, self.server.port)


def caught(settings: Settings, nameserver: str, port: int) -> Settings:
    """Return *settings* with which everything goes to *port* of this machine, and nothing anywhere else."""
    return replace(
        settings,
        network="loopback",
        nameservers=(nameserver,),
        tcp_port=str(port),
        disable_dns_lookups=False,
        inet_protocols=("ipv4",),
        inet_interfaces=("loopback-only",),
        relayhost="",
        fallback_relay=(),
        transport_maps=(),
        bind_address="",
        bind_address6="",
    )


def decoded(content: bytes) -> EmailMessage:
    """Return content as a message whose texts are decoded."""
    return email.message_from_bytes(content, policy=email.policy.default)
