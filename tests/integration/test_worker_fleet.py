"""Worker processes on PostgreSQL and Redis: each message is delivered once, whatever becomes of the broker."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script
from tests.fakes.fleet import Fleet, fleet

pytestmark = [pytest.mark.redis, pytest.mark.postgres]

LONG = timedelta(minutes=10)
SLOW = Script(delay_seconds=0.02)


def once_each(count: int) -> dict[str, int]:
    return {f"r{i}@d{i % 20}.test": 1 for i in range(count)}


def deliver_all(one: Fleet, count: int) -> None:
    one.smtp.wait_for(count, timeout_seconds=60)
    one.wait_until_all_sent(count)


def test_two_workers_deliver_a_thousand_messages_once_each(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with fleet(postgres_url, redis_server, tmp_path) as one, one.worker("first"), one.worker("second"):
        one.send(1000)
        deliver_all(one, 1000)
        assert once_each(1000) == one.taken()


class Transactions:
    """Counts transactions as the server sees them: a session that was left may look open for a moment more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self.peak = 0

    def begin(self, sender: str) -> str:
        with self._lock:
            self._open += 1
            self.peak = max(self.peak, self._open)
        return "250 2.1.0 Ok"

    def end(self, recipients: str) -> str:
        with self._lock:
            self._open -= 1
        return "250 2.0.0 Ok"


def test_a_destination_never_has_more_sessions_than_its_limit_over_all_workers(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    seen = Transactions()
    script = Script(mail=seen.begin, dot=seen.end, delay_seconds=0.02)
    limit = {"destination_concurrency_limit": 3, "lease_recipients": 5}
    with (
        fleet(postgres_url, redis_server, tmp_path, script=script, **limit) as one,
        one.worker("first"),
        one.worker("second"),
    ):
        one.queue(60, domains=1)
        deliver_all(one, 60)
        assert 3 == seen.peak


def test_a_worker_told_to_stop_hands_its_mail_to_the_other_and_none_is_lost_or_doubled(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    # Leases and rings outlive the test, so only what was handed over gets delivered.
    with (
        fleet(postgres_url, redis_server, tmp_path, script=SLOW, lease_time=LONG, ring_timeout=LONG) as one,
        one.worker("first") as first,
    ):
        one.queue(400)
        one.smtp.wait_for(50)
        with one.worker("second"):
            assert 0 == first.terminate()
            deliver_all(one, 400)
        assert once_each(400) == one.taken()


def test_mail_queued_while_the_broker_is_down_is_delivered_when_it_is_back(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with fleet(postgres_url, redis_server, tmp_path) as one, one.worker("only"):
        redis_server.stop()
        one.queue(20)
        redis_server.start()
        deliver_all(one, 20)
        assert once_each(20) == one.taken()


def test_a_wiped_broker_loses_nothing_and_doubles_nothing(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with (
        fleet(postgres_url, redis_server, tmp_path, script=SLOW) as one,
        one.worker("first", concurrency=10),
        redis_server.client() as client,
    ):
        one.queue(300)
        one.smtp.wait_for(50)
        client.flushall()
        deliver_all(one, 300)
        assert once_each(300) == one.taken()
