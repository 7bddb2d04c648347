"""A postmaster's little world: ``dest.test`` and its servers, and one message to deliver."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest, Recipient
from mailq.settings import Settings
from mailq.status import Bounced, Deferred, Delivered, Outcome, RecipientId
from mailq.tls.policies import Policies
from mailq.tls.sts import StsPolicies
from tests.fakes.clock import FakeClock
from tests.fakes.resolver import FakeResolver
from tests.fakes.servers import FakeNetwork, FakeServer

CONTENT = b"From: s@sender.test\r\nSubject: hello\r\n\r\nhello\r\n"
ME = "client.example.net"


class Bodies:
    """One content for every queue id."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content

    @contextmanager
    def open(self, queue_id: str) -> Iterator[io.BytesIO]:
        yield io.BytesIO(self.content)


class World:
    """``mx1`` to ``mx9`` of dest.test in order of preference, each at 192.0.2.1 to 192.0.2.9.

    A server given as None refuses connections; other names are hosts of their own (``fb.test``). With ``authentic``
    DNSSEC vouches for all of the zone.
    """

    def __init__(
        self,
        servers: Mapping[str, FakeServer | None],
        *,
        zone: Mapping[str, Any] | None = None,
        own_addresses: Sequence[str] = (),
        authentic: bool = False,
        sts: StsPolicies | None = None,
        **settings: Any,
    ) -> None:
        self.clock = FakeClock()
        self.servers = {name: server for name, server in servers.items() if server is not None}
        hosts = {name if "." in name else f"{name}.dest.test": f"192.0.2.{i}" for i, name in enumerate(servers, 1)}
        mx = [f"{10 * i} {name}.dest.test." for i, name in enumerate((n for n in servers if "." not in n), 1)]
        full_zone: dict[str, Any] = {host: {"A": [address]} for host, address in hosts.items()}
        if mx:
            full_zone["dest.test"] = {"MX": mx}
        self.addresses = dict(zip(servers, hosts.values(), strict=True))
        self.network = FakeNetwork({self.addresses[name]: server for name, server in self.servers.items()})
        defaults: dict[str, Any] = {
            "myhostname": ME,
            "inet_protocols": ("ipv4",),
            "randomize_addresses": False,
            "tls_security_level": "none",
        }
        self.settings = Settings(**(defaults | settings))
        self.cache = SessionCache(self.clock, idle_time=self.settings.connection_cache_time_limit)
        self.bodies = Bodies()
        resolver = FakeResolver(full_zone | dict(zone or {}), authentic=authentic)
        self.ports = Ports(
            clock=self.clock,
            resolver=resolver,
            connector=self.network,
            bodies=self.bodies,
            rng=Random(1),
            own_addresses=frozenset(own_addresses),
            tls=Policies(self.settings, resolver=resolver, sts=sts),
        )
        self.settled: list[Mapping[RecipientId, Outcome]] = []

    def deliver(
        self, *recipients: str, nexthop: str = "dest.test", age: timedelta = timedelta(0), **fields: Any
    ) -> dict[str, Outcome]:
        """Deliver one message and return the outcomes by recipient."""
        who = tuple(Recipient(RecipientId(i), address) for i, address in enumerate(recipients or ("u@dest.test",), 1))
        now = self.clock.now()
        request = DeliveryRequest(
            queue_id="Q1",
            nexthop=nexthop,
            sender="s@sender.test",
            recipients=who,
            size_bytes=len(self.bodies.content),
            arrived_at=now - age,
            active_at=now,
        )
        report = deliver(
            replace(request, **fields),
            ports=self.ports,
            settings=self.settings,
            sessions=self.cache,
            on_settled=self.settled.append,
        )
        self.destination_failure = report.destination_failure
        self.troubles = report.troubles
        return {recipient.address: report.outcomes[recipient.id] for recipient in who}

    def said(self, name: str, session: int = 0) -> list[str]:
        """Return the first words that server *name* heard in its n-th session."""
        return [line.split(" ")[0] if line else line for line in self.servers[name].sessions[session]]


def brief(outcome: Outcome) -> str:
    """Return an outcome in one line: word, status, server."""
    if isinstance(outcome, Delivered):
        return f"sent {outcome.reply.status} {outcome.endpoint.host}"
    word = {Deferred: "deferred", Bounced: "bounced"}[type(outcome)]
    relay = outcome.failure.relay
    return f"{word} {outcome.failure.status} {relay.host if relay else 'none'}"


def reason(outcome: Outcome) -> str:
    """Return why an outcome is what it is."""
    assert not isinstance(outcome, Delivered)
    return outcome.failure.reason
