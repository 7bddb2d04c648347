"""Limits on real workers: what receivers see is what was allowed, and nobody else's mail pays for it.

The long form, with more of everything, is ``make limits``.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.testing.counting_receiver import CountingReceiver
from mailq.testing.dnsd import DnsServer
from mailq.testing.redisd import RedisServer
from mailq.testing.workers import WorkerProcess
from mailq.worker.embedded import embedded
from tests.fakes.fleet import CONTENT, quick_settings
from tests.fakes.poll import eventually
from tests.fakes.queue_values import unsynced

NUMBERS = itertools.count()


@dataclass
class Scene:
    """A queue, a small Internet, and what counts."""

    settings: Settings
    store: Store
    receiver: CountingReceiver

    def queue(self, count: int, *nexthops: str, tenant: str = "") -> None:
        self.store.insert(
            [
                NewMessage(
                    sender="a@sender.test",
                    recipients=(NewRecipient(address=f"r{i}@{nexthop}", nexthop=nexthop),),
                    content=CONTENT % next(NUMBERS),
                    tenant=tenant,
                )
                for i, nexthop in zip(range(count), itertools.cycle(nexthops), strict=False)
            ]
        )

    def queue_one(self, nexthop: str, *, recipients: int) -> None:
        them = tuple(NewRecipient(address=f"r{i}@{nexthop}", nexthop=nexthop) for i in range(recipients))
        self.store.insert([NewMessage(sender="a@sender.test", recipients=them, content=CONTENT % next(NUMBERS))])

    def wait_until_sent(self, count: int, *, within_seconds: float = 60) -> None:
        eventually(lambda: self.store.counts()[ShownState.SENT] >= count, within_seconds=within_seconds)


@contextmanager
def scene(
    url: str,
    folder: Path,
    rules: str,
    *,
    domains: int = 1,
    think_seconds: float = 0.01,
    greets: Callable[[str], bool] = lambda _: True,
    **settings: Any,
) -> Iterator[Scene]:
    """Domains ``d0.test`` and so on lead to 127.0.0.1, ``other.test`` to 127.0.0.2."""
    zone: dict[str, Any] = {f"d{number}.test": {"MX": ["10 mx.test."]} for number in range(domains)}
    zone |= {"mx.test": {"A": ["127.0.0.1"]}, "other.test": {"MX": ["10 mx.other.test."]}}
    zone["mx.other.test"] = {"A": ["127.0.0.2"]}
    path = folder / "limits.toml"
    path.write_text(rules)
    receiver = CountingReceiver(("127.0.0.1", "127.0.0.2"), think_seconds=think_seconds, greets=greets)
    with receiver, DnsServer(zone) as dns:
        options = quick_settings(
            database_url=url,
            nameservers=(dns.nameserver,),
            tcp_port=str(receiver.port),
            limits_file=str(path),
            skip_quit_response=False,
            urgent_priority=-1,
            **settings,
        )
        store = unsynced(Store.open(url))
        try:
            yield Scene(options, store, receiver)
        finally:
            store.close()


def test_a_site_of_many_domains_never_has_a_session_too_many_and_uses_all_it_may(
    sqlite_url: str, tmp_path: Path
) -> None:
    rules = '[site."mx.test"]\nsessions = 3\n'
    with scene(sqlite_url, tmp_path, rules, domains=40) as one:
        one.queue(200, *(f"d{number}.test" for number in range(40)))
        with embedded(one.settings, concurrency=15):
            one.wait_until_sent(200)
        assert (3, 200) == (one.receiver.most["127.0.0.1"], len(one.receiver.taken["127.0.0.1"]))


def test_a_rate_is_kept_and_other_mail_is_not_held_up(sqlite_url: str, tmp_path: Path) -> None:
    rules = '[destination."d0.test"]\nrate = "10/s"\nsessions = 5\n'
    with scene(sqlite_url, tmp_path, rules, think_seconds=0) as one:
        one.queue(30, "d0.test")
        one.queue(50, "other.test")
        with embedded(one.settings, concurrency=15):
            one.wait_until_sent(80)
        slow, quick = one.receiver.taken["127.0.0.1"], one.receiver.taken["127.0.0.2"]
        assert (30, 50) == (len(slow), len(quick))
        assert slow[-1] - slow[0] >= 2.5
        assert quick[len(quick) // 2] < slow[-1]


def test_destinations_that_never_answer_hold_up_nobody_else(sqlite_url: str, tmp_path: Path) -> None:
    with scene(
        sqlite_url,
        tmp_path,
        "",
        domains=60,
        greets=lambda address: address == "127.0.0.2",
        helo_timeout=timedelta(seconds=1),
        minimal_backoff_time=timedelta(minutes=5),
        maximal_backoff_time=timedelta(minutes=5),
    ) as one:
        one.queue(180, *(f"d{number}.test" for number in range(60)))
        with embedded(one.settings, concurrency=20):
            eventually(lambda: one.receiver.most["127.0.0.1"] > 5, within_seconds=20)
            one.queue(20, "other.test")
            one.wait_until_sent(20)
        # One message of each destination is tried, and the others wait.
        assert 60 >= one.store.counts()[ShownState.DEFERRED]
        assert 120 <= one.store.counts()[ShownState.QUEUED]


def test_mail_of_a_tenant_that_used_its_rate_up_waits_and_that_of_others_passes_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    with scene(sqlite_url, tmp_path, '[tenant.acme]\nrate = "1/h burst=2"\n') as one:
        one.queue(10, "d0.test", tenant="acme")
        one.queue(10, "d0.test", tenant="zeta")
        with embedded(one.settings, concurrency=5):
            one.wait_until_sent(12)
        counts = one.store.counts()
        assert (12, 8, 0) == (counts[ShownState.SENT], counts[ShownState.QUEUED], counts[ShownState.DEFERRED])


def test_a_session_carries_no_more_messages_and_a_message_no_more_recipients_than_is_said(
    sqlite_url: str, tmp_path: Path
) -> None:
    rules = '[destination."d0.test"]\nmessages_per_session = 2\nrecipients_per_transaction = 3\nsessions = 1\n'
    with scene(sqlite_url, tmp_path, rules) as one:
        one.queue_one("d0.test", recipients=12)
        with embedded(one.settings, concurrency=5):
            one.wait_until_sent(12)
        assert (4, 2) == (len(one.receiver.taken["127.0.0.1"]), one.receiver.connections["127.0.0.1"])


@pytest.mark.redis
@pytest.mark.postgres
def test_losing_redis_for_a_while_loses_nothing_and_exceeds_nothing(
    postgres_url: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    domains = [f"d{number}.test" for number in range(30)]
    options = {"broker_url": redis_server.url, "key_prefix": "lost:", "ring_timeout": timedelta(seconds=0.5)}
    rules = '[site."mx.test"]\nsessions = 2\n'
    with scene(postgres_url, tmp_path, rules, domains=30, think_seconds=0.05, **options) as one:
        one.queue(300, *domains)
        with (
            WorkerProcess(one.settings, folder=tmp_path, name="w1", concurrency=10),
            WorkerProcess(one.settings, folder=tmp_path, name="w2", concurrency=10),
        ):
            eventually(lambda: len(one.receiver.taken["127.0.0.1"]) > 20, within_seconds=30)
            redis_server.stop()
            lost_at = time.monotonic()
            try:
                # Nobody rings any more, and the mail goes on.
                eventually(lambda: any(at > lost_at + 5 for at in one.receiver.taken["127.0.0.1"]), within_seconds=40)
            finally:
                redis_server.start()
            one.wait_until_sent(300)
        assert 2 == one.receiver.most["127.0.0.1"]
        assert 300 == len(one.receiver.taken["127.0.0.1"])
