"""A worker dies in the middle of its work."""

from pathlib import Path

import pytest

from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script
from tests.fakes.fleet import fleet

pytestmark = [pytest.mark.redis, pytest.mark.postgres]

THREADS = 10


def test_all_mail_of_a_killed_worker_is_delivered_and_only_what_was_in_flight_twice(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with (
        fleet(postgres_url, redis_server, tmp_path, script=Script(delay_seconds=0.02)) as one,
        one.worker("victim", concurrency=THREADS) as victim,
    ):
        one.queue(500)
        one.smtp.wait_for(100)
        victim.kill()
        with one.worker("heir"):
            one.wait_until_all_sent(500)
        taken = one.taken()
        assert {f"r{i}@d{i % 20}.test" for i in range(500)} == set(taken)
        assert THREADS >= sum(taken.values()) - 500
