"""A worker stands still for longer than its leases live, and then goes on as if nothing had happened."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from mailq.queue.selectors import Selector
from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script
from tests.fakes.fleet import fleet

pytestmark = [pytest.mark.redis, pytest.mark.postgres]

THREADS = 10


def test_a_frozen_worker_loses_its_mail_to_others_and_can_neither_send_nor_write_when_it_thaws(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    # It may well be frozen in the middle of a transaction, whose locks the database is to take from it.
    url = f"{postgres_url}?options=-c%20idle_in_transaction_session_timeout%3D1s"
    with (
        fleet(url, redis_server, tmp_path, script=Script(delay_seconds=0.02)) as one,
        one.worker("sleeper", concurrency=THREADS) as sleeper,
    ):
        one.queue(300)
        one.smtp.wait_for(60)
        os.kill(sleeper.running.pid, signal.SIGSTOP)
        try:
            with one.worker("heir"):
                one.wait_until_all_sent(300)
        finally:
            os.kill(sleeper.running.pid, signal.SIGCONT)
        # It is in working order again, under new leases.
        one.queue(40)
        one.wait_until_all_sent(340)
        taken = one.taken()
        assert {f"r{i}@d{i % 20}.test" for i in range(300)} == set(taken)
        assert THREADS >= sum(taken.values()) - 340
        queue_ids = {each.queue_id for each in one.store.list_recipients(Selector(), limit=1000)}
        told = Counter(
            attempt.outcome
            for queue_id in queue_ids
            for each in one.store.show(queue_id).recipients
            for attempt in each.history
        )
        assert 340 == told["sent"]
