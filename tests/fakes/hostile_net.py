"""A worker in this process that sends to a net of domains, each with a server as good or as bad as a test wants it."""

import contextlib
import itertools
import os
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.queue.views import AttemptView, RecipientView
from mailq.settings import Settings
from mailq.testing.dnsd import DnsServer
from mailq.testing.https import HttpsServer, Page
from mailq.testing.receivers.daemon import free_port
from mailq.testing.smtpd import ScriptedSmtpServer
from mailq.worker.embedded import embedded
from mailq.worker.runtime import Runtime
from mailq.worker.wiring import build_runtime
from tests.fakes.certificate import Issued
from tests.fakes.fleet import quick_settings
from tests.fakes.poll import eventually

# Of this process alone, so that tests side by side do not take ports from one another.
_NET = f"127.{os.getpid() % 200 + 20}.41"
SECRET_BODY = b"the body that nobody else may read"
CONTENT = b"From: a@sender.test\r\nMessage-ID: <1@sender.test>\r\nSubject: hello\r\n\r\n" + SECRET_BODY + b"\r\n"
STS_POLICY = "version: STSv1\r\nmode: enforce\r\nmx: *.honest.test\r\nmax_age: 86400\r\n"


@dataclass
class Told:
    """What became of one recipient's mail after one attempt, and what its server heard."""

    recipient: RecipientView
    server: ScriptedSmtpServer

    @property
    def attempt(self) -> AttemptView:
        return self.recipient.history[-1]

    @property
    def outcome(self) -> str:
        return f"{self.attempt.outcome} {self.attempt.status}"

    @property
    def tls(self) -> Mapping[str, Any]:
        assert self.attempt.tls is not None, self.attempt
        return self.attempt.tls

    @property
    def lines(self) -> list[str]:
        """Everything said to the server, over all connections."""
        return [line for lines in self.server.commands.values() for line in lines]

    @property
    def mail_was_begun(self) -> bool:
        """Whether the server was told as much as a sender."""
        return any(line.upper().startswith("MAIL") for line in self.lines)

    @property
    def decoded(self) -> list[bytes]:
        """The responses of log-ins, decoded."""
        words = [line.rpartition(" ")[2] for line in self.lines if " " not in line or line.startswith("AUTH ")]
        found = []
        for word in words:
            with contextlib.suppress(ValueError):
                found.append(b64decode(word, validate=True))
        return found


@dataclass
class HostileNet:
    """Everything beyond the worker."""

    runtime: Runtime
    store: Store
    dns: DnsServer
    policies: HttpsServer
    root: Issued
    folder: Path
    port: int
    stack: contextlib.ExitStack
    addresses: Iterator[str] = field(default_factory=lambda: (f"{_NET}.{n}" for n in itertools.count(1)))

    def serve(self, domain: str, *, host: str = "", validated: bool = False, **server: Any) -> ScriptedSmtpServer:
        """Give *domain* one server, called *host*; DNSSEC vouches for the host where *validated*."""
        host = host or f"mx.{domain}"
        address = next(self.addresses)
        known: dict[str, Any] = {"_ad": []} if validated else {}
        self.dns.set(domain, {"MX": [f"10 {host}."]})
        self.dns.set(host, {"A": [address], **known})
        if validated:
            self.dns.set(f"_{self.port}._tcp.{host}", {"TLSA": [], **known})
        return self.stack.enter_context(ScriptedSmtpServer(address=address, port=self.port, **server))

    def announce(self, domain: str, *, policy: str = STS_POLICY) -> None:
        """Publish an MTA-STS policy; all domains share one policy host, and so its text."""
        self.dns.set(f"_mta-sts.{domain}", {"TXT": ['"v=STSv1; id=1;"']})
        self.dns.set(f"mta-sts.{domain}", {"A": ["127.0.0.1"]})
        self.policies.set(Page(body=policy.encode()))
        self.policies.present(self.certificate(f"mta-sts.{domain}"))

    def publish_tlsa(self, host: str, record: str) -> None:
        self.dns.set(f"_{self.port}._tcp.{host}", {"TLSA": [record], "_ad": []})

    def certificate(self, *names: str, **how: Any) -> Path:
        return self.root.issue(*names, **how).write(self.folder)

    def send(self, domain: str, server: ScriptedSmtpServer, **message: Any) -> Told:
        """Queue mail for *domain*, and wait until its first attempt is over."""
        new = NewMessage(
            sender="a@sender.test",
            recipients=(NewRecipient(address=f"u@{domain}", nexthop=domain),),
            content=CONTENT,
            **message,
        )
        (queue_id,) = self.store.insert([new])
        self.runtime.ringer.ring(domain)

        def attempted() -> RecipientView | None:
            (recipient,) = self.store.show(queue_id).recipients
            return recipient if recipient.history and recipient.state is not ShownState.ACTIVE else None

        found = eventually(attempted, within_seconds=60)
        assert found is not None
        return Told(found, server)


@contextlib.contextmanager
def hostile_net(url: str, folder: Path, root: Issued, **settings: Any) -> Iterator[HostileNet]:
    """Start the worker; every message gets one attempt, since the next is minutes away."""
    authorities = folder / "authorities.pem"
    root.wrote(authorities)
    port = free_port(f"{_NET}.1")
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(DnsServer({}))
        policies = stack.enter_context(HttpsServer(root.issue("mta-sts.test").write(folder)))
        given: dict[str, Any] = {
            "database_url": url,
            "broker_url": "memory://",
            "nameservers": (dns.nameserver,),
            "dns_support_level": "dnssec",
            "tls_security_level": "dane",
            "tcp_port": str(port),
            "mta_sts": True,
            "mta_sts_cafile": str(authorities),
            "tls_cafile": str(authorities),
            "minimal_backoff_time": timedelta(minutes=5),
            "maximal_backoff_time": timedelta(hours=1),
            "transcripts": "all",
        }
        values: Settings = quick_settings(**(given | settings))
        runtime = stack.enter_context(embedded(values, build=partial(build_runtime, https_port=policies.port)))
        servers = stack.enter_context(contextlib.ExitStack())
        yield HostileNet(runtime, runtime.store, dns, policies, root, folder, port, servers)
