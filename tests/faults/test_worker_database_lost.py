"""The database goes away in the middle of the work and comes back."""

from pathlib import Path

import pytest

from mailq.testing.postgres import PostgresServer
from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script
from tests.fakes.fleet import fleet

pytestmark = [pytest.mark.redis, pytest.mark.postgres]


def test_a_restarted_database_loses_nothing_and_doubles_nothing(
    postgres_server: PostgresServer, postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with (
        fleet(postgres_url, redis_server, tmp_path, script=Script(delay_seconds=0.02)) as one,
        one.worker("first", concurrency=10),
    ):
        one.queue(200)
        one.smtp.wait_for(50)
        postgres_server.restart()
        one.wait_until_all_sent(200)
        assert {f"r{i}@d{i % 20}.test": 1 for i in range(200)} == one.taken()
