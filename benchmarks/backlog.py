"""Does a backlog of a million cost anything? Dispatching, claiming and a new message's way, against a small queue.

    python -m benchmarks.backlog [--recipients 1000000] [--nexthops 20000] [--repeat 200]

A private PostgreSQL holds a small queue (a thousand deferred recipients) and a
large one, loaded by ``generate_series``; the large one is measured with all of
it waiting for later, with half of it due, and with one tenant owning all of a
nexthop's hundred thousand. Each step is timed on the small and the large queue
in turn, so that whatever else the machine does falls on both, and medians are
compared; a step over the limit is measured again up to twice, and counts only
if it stays there. Then a real worker is started on the large queue, and a new
message of priority 0 has two seconds to reach a server.

Exits with 1 when a step costs more than 1.5 times as much, or the message takes longer.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from mailq.queue.backoff import Done
from mailq.queue.messages import NewMessage, NewRecipient, RecipientResult
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.status import Delivered, Endpoint, Reply
from mailq.testing.dnsd import DnsServer
from mailq.testing.postgres import PostgresServer
from mailq.testing.smtpd import ScriptedSmtpServer
from mailq.worker.embedded import embedded

LIMIT = 1.5
LEAVES_WITHIN_SECONDS = 2.0
SMALL = 1000
CROWDED = 100_000
TRIES = 3
MINUTE = timedelta(minutes=1)
CONTENT = b"From: a@sender.test\r\nMessage-ID: <new@sender.test>\r\nSubject: hello\r\n\r\nhello\r\n"
TAKEN = Delivered(Endpoint("mx.test", "192.0.2.1", 25), Reply(250, ("250 2.0.0 Ok",)))

# Deferred once an hour ago, due again within the next days; ids that sort by time, as real ones do.
LOAD = """
INSERT INTO mailq_message (id, sender, size_bytes, smtputf8, utf8_header, envid, created_at, arrived_at,
                           priority, tags, tenant)
SELECT 'B' || lpad(n::text, 12, '0'), 'a@sender.test', 100, false, false, '', now() - interval '1 hour',
       now() - interval '1 hour', 5, '{}', :tenant
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n;
INSERT INTO mailq_content (message_id, data)
SELECT 'B' || lpad(n::text, 12, '0'), CAST('hello' AS bytea)
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n;
INSERT INTO mailq_recipient (message_id, address, orcpt, notify, nexthop, state, priority, due_at, fresh, attempts,
                             tenant)
SELECT 'B' || lpad(n::text, 12, '0'), 'r' || n || '@d' || (n % :nexthops) || '.test', '', '',
       'd' || (n % :nexthops) || '.test', 'queued', 5, now() + interval '1 day' + n * interval '1 ms', false, 1, :tenant
FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n;
INSERT INTO mailq_destination (nexthop, next_ring_at, touched_at)
SELECT nexthop, min(due_at), now() FROM mailq_recipient GROUP BY nexthop
ON CONFLICT (nexthop) DO UPDATE SET next_ring_at = excluded.next_ring_at
"""
# Half of the backlog is due and rung for, as in the minutes after an outage.
HALF_DUE = """
UPDATE mailq_recipient SET due_at = now() - interval '1 minute' WHERE id % 2 = 0 AND state = 'queued';
UPDATE mailq_destination SET next_ring_at = now() + interval '1 hour'
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is timed.

    Attributes:
        name: In the table.
        run: Does it to a queue.
        prepare: Done before each run, not timed.
    """

    name: str
    run: Callable[[Store], object]
    prepare: Callable[[Store], object] = lambda _: None


def load(store: Store, *, first: int, last: int, nexthops: int, tenant: str = "") -> None:
    """Fill a queue and have the planner know it."""
    values = {"first": first, "last": last, "nexthops": nexthops, "tenant": tenant}
    run(store, LOAD, values)


def run(store: Store, script: str, values: dict[str, Any] | None = None) -> None:
    """Run statements separated by semicolons in one transaction, then refresh the statistics."""
    with store.engine.begin() as connection:
        for statement in script.split(";"):
            names = {name: value for name, value in (values or {}).items() if f":{name}" in statement}
            connection.execute(text(statement), names)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def a_message(nexthop: str, *, priority: int = 5, tenant: str = "") -> NewMessage:
    """Return a message to one recipient."""
    recipient = NewRecipient(address="bob@far.test", nexthop=nexthop)
    return NewMessage(
        sender="a@sender.test", recipients=(recipient,), content=CONTENT, priority=priority, tenant=tenant
    )


def tick(store: Store) -> None:
    """Do what a dispatcher does each round."""
    store.sweep()
    store.notice_new(limit=5000)
    store.due_nexthops(limit=500, ring_timeout=timedelta(hours=1))
    store.due_reports(limit=100, wait=MINUTE)


def serve(store: Store, nexthop: str) -> None:
    """Do what a task does for one message, without its server."""
    lease = store.claim(nexthop, owner="benchmark", limit=10, lease_time=MINUTE)
    if lease is None:
        raise RuntimeError(f"nothing was due to {nexthop}")
    now = datetime.now(UTC)
    one = next(iter(lease.attempts))
    result = RecipientResult(recipient_id=one, outcome=TAKEN, disposition=Done(), started_at=now, finished_at=now)
    store.record(lease.id, [result])
    store.release(lease.id)
    store.settle(nexthop)


def queue_new(nexthop: str, **fields: Any) -> Callable[[Store], object]:
    """Return what puts a message of nobody else's into the queue."""
    return lambda store: store.insert([a_message(nexthop, **fields)])


STEPS = [
    Step("dispatcher: a round with nothing to do", tick),
    Step("dispatcher: a round with one new message", tick, queue_new("d7.test")),
    Step("worker: claim, record, release, settle", lambda store: serve(store, "d7.test"), queue_new("d7.test")),
    Step(
        "worker: the same for a tenant of its own",
        lambda store: serve(store, "d7.test"),
        queue_new("d7.test", tenant="small"),
    ),
    Step("worker: a claim that finds nothing", lambda store: claim_urgent(store, "d9.test")),
    Step("worker: settle", lambda store: store.settle("d9.test")),
    Step("application: queue one message", queue_new("d8.test")),
]


def claim_urgent(store: Store, nexthop: str) -> None:
    """Claim what is not there."""
    store.claim(nexthop, owner="benchmark", limit=10, lease_time=MINUTE, last_priority=0)


def measure(step: Step, stores: tuple[Store, Store], repeat: int) -> tuple[float, float]:
    """Return the medians of a step on two queues, in milliseconds, run in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(repeat + 20):
        for store, found in zip(stores, times, strict=True):
            step.prepare(store)
            began = time.perf_counter()
            step.run(store)
            if number >= 20:  # noqa: PLR2004 - the first ones fill caches
                found.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


def compare(title: str, stores: tuple[Store, Store], repeat: int) -> bool:
    """Print a table; return whether every step stays within the limit."""
    print(f"\n{title}\n{'':46}{'small ms':>10}{'large ms':>10}{'ratio':>8}")
    fine = True
    for step in STEPS:
        for _ in range(TRIES):
            small, large = measure(step, stores, repeat)
            if large <= LIMIT * small:
                break
        within = large <= LIMIT * small
        print(f"{step.name:46}{small:10.2f}{large:10.2f}{large / small:8.2f}{'' if within else '  TOO MUCH'}")
        fine = fine and within
    return fine


@contextmanager
def worker_on(url: str) -> Iterator[tuple[ScriptedSmtpServer, Any]]:
    """Run a worker in this process, whose only server takes every message."""
    with ScriptedSmtpServer() as smtp, DnsServer({}) as dns:
        settings = Settings(
            database_url=url,
            myhostname="client.test",
            network="loopback",
            inet_protocols=("ipv4",),
            tls_security_level="none",
            nameservers=(dns.nameserver,),
        )
        with embedded(settings, concurrency=20):
            yield smtp, settings


def leaves_soon(title: str, url: str, store: Store, *, bulk: int) -> bool:
    """Queue a message of priority 0 beside *bulk* newsletters to the same server; return whether it was soon there."""
    with worker_on(url) as (smtp, _):
        nexthop = f"[127.0.0.1]:{smtp.port}"
        if bulk:
            store.insert([a_message(nexthop, priority=9) for _ in range(bulk)])
            smtp.wait_for(50, timeout_seconds=30)
        recipient = NewRecipient(address="urgent@far.test", nexthop=nexthop)
        began = time.perf_counter()
        store.insert([NewMessage(sender="a@sender.test", recipients=(recipient,), content=CONTENT, priority=0)])
        while time.perf_counter() - began < 10 * LEAVES_WITHIN_SECONDS:
            if any("urgent@far.test" in one.recipients for one in smtp.deliveries):
                break
            time.sleep(0.01)
        seconds = time.perf_counter() - began
    print(f"{title:46}{seconds:8.2f} s{'' if seconds <= LEAVES_WITHIN_SECONDS else '  TOO LONG'}")
    return seconds <= LEAVES_WITHIN_SECONDS


def main() -> int:
    """Run everything; return the exit status."""
    parser = argparse.ArgumentParser(description="The cost of a large backlog.")
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--nexthops", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=200)
    options = parser.parse_args()
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o700)
        small_url, large_url = server.create_database("small"), server.create_database("large")
        small, large = Store.open(small_url), Store.open(large_url)
        for store, count, nexthops in ((small, SMALL, 20), (large, options.recipients, options.nexthops)):
            store.migrate()
            began = time.perf_counter()
            load(store, first=1, last=count, nexthops=nexthops)
            print(f"{count} recipients to {nexthops} nexthops loaded in {time.perf_counter() - began:.0f} s")
        fine = compare("all waiting for later", (small, large), options.repeat)
        fine &= leaves_soon("a new message with a worker, all waiting", large_url, large, bulk=0)
        fine &= leaves_soon("the same beside 2000 newsletters", large_url, large, bulk=2000)
        for store, count in ((small, 50), (large, CROWDED)):
            load(store, first=2_000_000, last=2_000_000 + count, nexthops=1, tenant="large")
            move = "UPDATE mailq_recipient SET nexthop = 'd7.test', due_at = now() - interval '1 minute' "
            run(store, move + "WHERE tenant = 'large'")
        fine &= compare(f"one tenant with {CROWDED} due to one nexthop", (small, large), options.repeat)
        for store in (small, large):
            run(store, HALF_DUE)
        fine &= compare("half of it due", (small, large), options.repeat)
        for store in (small, large):
            store.close()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
