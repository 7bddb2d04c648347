"""The routine against a naive model of the flag-based loop, on every small mail system.

Nothing here is drawn at random: each combination of up to three recipients, two to three sites and three servers is
played to both. They agree in every word, status, relay, in the order of calls, and about the destination's health.
"""

import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random

import pytest

from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest, Recipient
from mailq.errors import (
    ConnectFailedError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LookupFailedError,
    LookupKind,
    TlsHandshakeError,
)
from mailq.routing.answer import Answer
from mailq.security import TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.status import Bounced, Delivered, Endpoint, Outcome, RecipientId
from tests.fakes.enumerated_cases import (
    ALL,
    Behaviour,
    Case,
    Place,
    cases_starting_with,
    cases_without_first_server,
)
from tests.fakes.reference_model import Account, Fate, play

ME = "client.test"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ADDRESSES = {"h0.test": "192.0.2.1", "h1.test": "192.0.2.2", "h2.test": "192.0.2.3", "me.test": "192.0.2.99"}
LOOKUP_KINDS = {
    "4.4.3": LookupKind.RETRY,
    "5.4.3": LookupKind.FAIL,
    "5.4.4": LookupKind.INVALID,
    "5.1.0": LookupKind.NULL_MX,
}


class _Wire:
    """A connection to a server that behaves as the case says."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._output = b""
        self._gone = self._in_content = False
        self.encrypted = False
        self._say(behaviour.greeting)

    def send(self, data: bytes, *, timeout_seconds: float) -> None:
        if self._gone:
            raise ConnectionLostError
        if self._in_content:
            if data.endswith(b".\r\n"):
                self._in_content = False
                self._say(self._behaviour.dot)
            return
        for line in data.split(b"\r\n")[:-1]:
            self._command(line)

    def receive(self, *, timeout_seconds: float) -> bytes:
        if not self._output:
            raise ConnectionLostError if self._gone or timeout_seconds > 0 else ConnectionTimeoutError
        data, self._output = self._output, b""
        return data

    def start_tls(self, policy: TlsPolicy, *, host: str, timeout_seconds: float) -> TlsResult:
        raise TlsHandshakeError

    def channel_binding(self, kind: str) -> bytes | None:
        return None

    def close(self) -> None:
        self._gone = True

    def _say(self, reply: str) -> None:
        if reply == "!":
            self._gone = True
        elif not self._gone:
            self._output += reply.encode() + b"\r\n"

    def _command(self, line: bytes) -> None:
        behaviour = self._behaviour
        match line[:4]:
            case b"EHLO":
                self._say(behaviour.ehlo if behaviour.ehlo[0] != "2" else self._features())
            case b"HELO":
                self._say(behaviour.helo)
            case b"MAIL":
                self._say(behaviour.mail)
            case b"RCPT":
                self._say(behaviour.rcpts[int(line[9:10])])
            case b"DATA":
                self._in_content = behaviour.data[0] == "3"
                self._say(behaviour.data)
            case _:
                self._say("250 ok")

    def _features(self) -> str:
        behaviour = self._behaviour
        words = [ME if behaviour.own_name else "there"]
        words += ["PIPELINING"] * behaviour.pipelining + ["STARTTLS"] * behaviour.bad_tls
        return "\r\n".join([*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}"])


class _World:
    """Resolver, network, message store and clock of one case at a time."""

    def __init__(self) -> None:
        self._places: Mapping[str, Place] = {}
        self._servers: Mapping[str, Behaviour] = {}
        self.calls: list[str] = []
        self.settled: dict[RecipientId, Outcome] = {}
        self.sessions = SessionCache(self)
        self.ports = Ports(
            clock=self,
            resolver=self,
            connector=self,
            bodies=self,
            rng=Random(1),
            own_addresses=frozenset({ADDRESSES["me.test"]}),
        )

    def play(self, case: Case) -> Account:
        """Return what the routine makes of *case*."""
        self._places = dict(zip(_names(case), case.places + case.fallback, strict=True))
        self._servers = {ADDRESSES[host]: b for place in self._places.values() for host, _, b in place.servers}
        self.calls, self.settled = [], {}
        report = deliver(
            _request(case.recipients, len(case.places), case.waited_before),
            ports=self.ports,
            settings=_settings(
                len(case.places),
                len(case.fallback),
                case.relayhost,
                case.address_limit,
                case.session_limit,
                case.skip_5xx_greeting,
                case.soft_bounce,
            ),
            sessions=self.sessions,
            on_settled=self.settled.update,
        )
        assert self.settled.items() <= report.outcomes.items()
        fates = {int(recipient): _fate(outcome) for recipient, outcome in report.outcomes.items()}
        return Account(fates, report.destination_failure is not None, self.calls)

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def mail_exchangers(self, domain: str) -> Answer[tuple[int, str]]:
        place = self._places[domain]
        if place.lookup_failure:
            raise LookupFailedError(LOOKUP_KINDS[place.lookup_failure], "no answer")
        answers = [(preference, host) for host, preference, _ in place.servers]
        if place.own_preference is not None:
            answers.append((place.own_preference, "me.test"))
        if place.dead_preference is not None:
            answers.append((place.dead_preference, "dead.test"))
        return Answer(tuple(answers))

    def addresses(self, host: str) -> Answer[str]:
        if host == "dead.test":
            raise LookupFailedError(LookupKind.NOT_FOUND, "no such host")
        return Answer((ADDRESSES[host],))

    def connect(self, endpoint: Endpoint, *, timeout_seconds: float) -> _Wire:
        self.calls.append(endpoint.host)
        behaviour = self._servers[endpoint.address]
        if behaviour.refuses:
            raise ConnectFailedError("Connection refused")
        return _Wire(behaviour)

    def open(self, queue_id: str) -> io.BytesIO:
        return io.BytesIO(b"Subject: hello\r\n\r\nhello\r\n")


def _names(case: Case) -> list[str]:
    own = [f"site{i}.test" for i in range(len(case.places))]
    return own + [f"fallback{i}.test" for i in range(len(case.fallback))]


@lru_cache
def _request(recipients: int, places: int, waited: bool) -> DeliveryRequest:  # noqa: FBT001 - called once, above
    return DeliveryRequest(
        queue_id="Q1",
        nexthop=", ".join(f"site{i}.test" for i in range(places)),
        sender="s@sender.test",
        recipients=tuple(Recipient(RecipientId(i), f"{i}@dest.test") for i in range(recipients)),
        size_bytes=25,
        arrived_at=NOW - timedelta(seconds=301 if waited else 0),
        active_at=NOW,
    )


@lru_cache
def _settings(  # noqa: PLR0917 - the arguments are the key of the cache
    places: int,
    fallback: int,
    relayhost: bool,  # noqa: FBT001 - as above
    address_limit: int,
    session_limit: int,
    skip_5xx_greeting: bool,  # noqa: FBT001 - as above
    soft_bounce: bool,  # noqa: FBT001 - as above
) -> Settings:
    return Settings(
        myhostname=ME,
        relayhost="site0.test" if relayhost else "",
        fallback_relay=tuple(f"fallback{i}.test" for i in range(fallback)),
        mx_address_limit=address_limit,
        mx_session_limit=session_limit,
        skip_5xx_greeting=skip_5xx_greeting,
        soft_bounce=soft_bounce,
        randomize_addresses=False,
        inet_protocols=("ipv4",),
    )


def _fate(outcome: Outcome) -> Fate:
    if isinstance(outcome, Delivered):
        return "sent", str(outcome.reply.status), outcome.endpoint.host
    relay = outcome.failure.relay
    word = "bounced" if isinstance(outcome, Bounced) else "deferred"
    return word, str(outcome.failure.status), relay.host if relay else "none"


def _disagreements(cases: Iterable[Case]) -> tuple[int, list[tuple[Case, Account, Account]]]:
    world = _World()
    played, apart = 0, []
    for case in cases:
        played += 1
        expected, found = play(case), world.play(case)
        if expected != found:
            apart.append((case, expected, found))
    return played, apart


@pytest.mark.parametrize("first", ALL, ids=lambda behaviour: behaviour.name)
def test_the_routine_and_the_flag_based_model_agree_whatever_the_servers_do(first):
    """The loop: C-06 C-07 C-12 to C-14 C-30 C-31 C-39 to C-44 C-50 to C-54 C-58 to C-60 C-66 C-74 C-80 D-04 D-06.

    A session: S-04 S-10 to S-13 S-15 S-21 S-22 S-30 X-14 X-30 X-31 X-33 to X-39 X-50 to X-53 P-30. What it means:
    D-09 to D-11 T-01 to T-06 T-08 T-20 T-22 T-23 T-25 to T-27 T-29 T-31 T-35 T-39.
    """
    played, apart = _disagreements(cases_starting_with(first))
    assert [] == apart[:1], f"{len(apart)} of {played}"
    assert played > 1000


def test_the_routine_and_the_flag_based_model_agree_where_the_first_site_has_no_server():
    """C-22 to C-24 C-27 C-60 C-62 C-63 C-65 A-30 to A-32 A-34 A-37 D-05 T-20."""
    played, apart = _disagreements(cases_without_first_server())
    assert [] == apart[:1], f"{len(apart)} of {played}"
    assert played > 1000


def test_all_cases_together_are_more_than_a_hundred_thousand():
    assert 100_000 < sum(1 for first in ALL for _ in cases_starting_with(first))
