"""A small Internet with a fleet of real workers: DNS, an SMTP server, PostgreSQL, Redis and processes."""

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.settings import Settings
from mailq.testing.dnsd import DnsServer
from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script, ScriptedSmtpServer
from mailq.testing.workers import WorkerProcess, environment_of

CONTENT = b"From: a@sender.test\r\nMessage-ID: <%d@sender.test>\r\nSubject: hello\r\n\r\nhello\r\n"


def quick_settings(**fields: Any) -> Settings:
    """Settings under which everything that waits waits a moment only."""
    defaults: dict[str, Any] = {
        "myhostname": "client.test",
        "network": "loopback",
        "inet_protocols": ("ipv4",),
        "tls_security_level": "none",
        "dispatch_interval": timedelta(seconds=0.1),
        "ring_timeout": timedelta(seconds=1),
        "lease_time": timedelta(seconds=2),
        "linger_time": timedelta(seconds=0.05),
        "minimal_backoff_time": timedelta(seconds=0.2),
        "maximal_backoff_time": timedelta(seconds=0.5),
    }
    return Settings(**(defaults | fields))


class Fleet:
    """One queue, one SMTP server that all domains lead to, and workers."""

    def __init__(self, settings: Settings, smtp: ScriptedSmtpServer, folder: Path) -> None:
        self.settings = settings
        self.smtp = smtp
        self.store = Store.open(settings.database_url)
        self.ringer = Ringer(settings)
        self._folder = folder

    def worker(self, name: str, **options: Any) -> WorkerProcess:
        return WorkerProcess(self.settings, folder=self._folder, name=name, **options)

    def queue(self, count: int, *, domains: int = 20, ring: bool = True) -> None:
        """Queue *count* messages of one recipient each, in one transaction."""
        messages = [
            NewMessage(
                sender="a@sender.test",
                recipients=(NewRecipient(address=f"r{i}@d{i % domains}.test", nexthop=f"d{i % domains}.test"),),
                content=CONTENT % i,
            )
            for i in range(count)
        ]
        self.store.insert(messages)
        if ring:
            self.ringer.ring_all({one.nexthop for message in messages for one in message.recipients})

    def send(self, count: int, *, domains: int = 20) -> None:
        """Queue the same messages as :meth:`queue`, from files, by ``mailq send``."""
        folder = self._folder / "outbox"
        folder.mkdir()
        for i in range(count):
            header = f"To: r{i}@d{i % domains}.test\r\n".encode()
            (folder / f"{i}.eml").write_bytes(header + CONTENT % i)
        command = [sys.executable, "-m", "mailq.cli", "send", "--read-recipients", *map(str, sorted(folder.iterdir()))]
        subprocess.run(
            command, env=os.environ | environment_of(self.settings), check=True, capture_output=True, timeout=60
        )

    def wait_until_all_sent(self, count: int, *, timeout_seconds: float = 30.0) -> None:
        """Wait until the queue itself knows that *count* recipients are sent and nobody waits."""
        deadline = time.monotonic() + timeout_seconds
        while (counts := {state: n for state, n in self.store.counts().items() if n}) != {ShownState.SENT: count}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout_seconds} s the queue is at {counts}")
            time.sleep(0.05)

    def taken(self) -> Counter[str]:
        """How often the server took each recipient's message."""
        return Counter(address for delivery in self.smtp.deliveries for address in delivery.recipients)


@contextlib.contextmanager
def fleet(
    database_url: str, broker: RedisServer | None, folder: Path, *, script: Script | None = None, **settings: Any
) -> Iterator[Fleet]:
    """Set up a fleet without workers yet."""
    zone: dict[str, Any] = {f"d{i}.test": {"MX": ["10 mx.test."]} for i in range(20)}
    zone["mx.test"] = {"A": ["127.0.0.1"]}
    with ScriptedSmtpServer(script) as smtp, DnsServer(zone) as dns:
        one = Fleet(
            quick_settings(
                database_url=database_url,
                broker_url=broker.url if broker else "memory://",
                nameservers=(dns.nameserver,),
                tcp_port=str(smtp.port),
                **settings,
            ),
            smtp,
            folder,
        )
        try:
            yield one
        finally:
            one.ringer.close()
            one.store.close()
