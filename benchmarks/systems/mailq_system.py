"""mailq as its documentation recommends it: PostgreSQL with fsync, Redis, worker processes by ``mailq worker``."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, LiteralString

import psycopg

from benchmarks.backlog import load
from benchmarks.harness.system import Place, System, clean_environment, start_process
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.testing.postgres import PostgresServer
from mailq.testing.redisd import RedisServer
from mailq.testing.workers import environment_of

_BACKLOG_NEXTHOPS = 20_000
# The backlog has the lowest ids, and is not read here: a look at a million rows would be a load of its own.
_LEFT = "SELECT count(*) FROM mailq_recipient WHERE id > %s AND state IN ('queued', 'leased')"
_LAST = "SELECT coalesce(max(id), 0) FROM mailq_recipient"
_SENT = "SELECT count(*) FROM mailq_recipient WHERE state = 'sent'"
_ATTEMPTS = "SELECT count(*) FROM mailq_attempt WHERE outcome = 'sent'"


@dataclass(slots=True)
class Mailq(System):
    """One message a transaction at enqueue; its outcome and attempt recorded.

    Attributes:
        settings: More of mailq's.
    """

    name: ClassVar[str] = "mailq"
    batch: ClassVar[int] = 1
    raised: ClassVar[Mapping[str, Any]] = {}
    settings: Mapping[str, Any] = field(default_factory=dict)
    _settings: Settings = field(init=False)
    _postgres: PostgresServer = field(init=False)
    _redis: RedisServer = field(init=False)
    _last_of_backlog: int = field(init=False, default=0)
    _workers: list[int] = field(init=False, default_factory=list)

    def start(self, place: Place, stack: ExitStack) -> None:
        """Start PostgreSQL, Redis and the workers."""
        self.place = place
        self._postgres = stack.enter_context(PostgresServer())
        self._redis = stack.enter_context(RedisServer())
        self._settings = Settings(**(self._defaults(place) | dict(self.raised) | dict(self.settings)))
        store = Store.open(self._settings.database_url)
        store.migrate()
        if place.backlog:
            load(store, first=1, last=place.backlog, nexthops=min(place.backlog, _BACKLOG_NEXTHOPS))
        store.close()
        self._last_of_backlog = self._ask(_LAST)
        environment = clean_environment(**environment_of(self._settings))
        command = [sys.executable, "-m", "mailq.cli", "worker", *(["--processes", "1"] if place.processes else [])]
        for number in range(place.processes or 1):
            process = start_process(stack, command, self._log(number), env=environment, cwd=place.folder)
            self._workers.append(process.pid)

    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return the workers and the two servers."""
        return {"worker": self._workers, "postgresql": [self._postgres.pid], "redis": [self._redis.pid]}

    def injection(self) -> Mapping[str, Any]:
        """Return how many messages go into one transaction; the rest is in the environment."""
        return {"kind": "mailq", "batch": self.batch}

    def environment(self) -> Mapping[str, str]:
        """Return the settings of an application that uses this queue."""
        return clean_environment(**environment_of(self._settings))

    def left(self) -> int:
        """Ask the database."""
        return self._ask(_LEFT, self._last_of_backlog)

    def unrecorded(self, deliveries: int) -> int:
        """Compare with the recipients that are stored as sent, and with the attempts."""
        return max(0, deliveries - min(self._ask(_SENT), self._ask(_ATTEMPTS)))

    def _ask(self, question: LiteralString, *values: int) -> int:
        with psycopg.connect(self._settings.database_url) as connection:
            row = connection.execute(question, values).fetchone()
        return int(row[0]) if row else 0

    def log(self) -> str:
        """Return what the workers wrote."""
        logs = (self._log(number) for number in range(self.place.processes or 1))
        return "".join(path.read_text(errors="replace")[-3000:] for path in logs if path.exists())

    def _log(self, number: int) -> Path:
        return self.place.folder / f"worker{number}.log"

    def _defaults(self, place: Place) -> dict[str, Any]:
        return {
            "database_url": self._postgres.create_database("queue"),
            "broker_url": self._redis.url,
            "transport_maps": tuple(f"{domain}={nexthop}" for domain, nexthop in place.nexthops().items()),
            "myhostname": "client.test",
            "network": "loopback",
            "inet_protocols": ("ipv4",),
            "tls_security_level": "none",
            "message_size_limit_bytes": 0,
            **({"worker_concurrency": place.sessions} if place.sessions else {}),
        }


class MailqBulk(Mailq):
    """The same, with 500 messages a transaction at enqueue."""

    name = "mailq-bulk"
    batch = 500


class MailqTuned(Mailq):
    """With as many sessions to a destination as tuned Postfix has."""

    name = "mailq-tuned"
    raised: ClassVar[Mapping[str, Any]] = {
        "destination_concurrency_limit": 50,
        "initial_destination_concurrency": 50,
    }
