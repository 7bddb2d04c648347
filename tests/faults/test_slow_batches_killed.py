"""Workers die while slow sessions give halves of their batches to each other."""

import time
from collections import Counter
from pathlib import Path
from random import Random

import psycopg
import pytest

from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script
from tests.fakes.fleet import Fleet, fleet
from tests.fakes.poll import eventually

pytestmark = [pytest.mark.redis, pytest.mark.postgres]

MESSAGES = 360
DOMAINS = 6
THREADS = 60


def _leases(one: Fleet) -> int:
    """Return by how many leases mail was sent so far."""
    with psycopg.connect(one.settings.database_url) as connection:
        row = connection.execute("SELECT count(DISTINCT lease_id) FROM mailq_attempt").fetchone()
    return int(row[0]) if row else 0


def test_nothing_is_lost_and_only_what_was_in_flight_doubled_when_workers_die_that_share_slow_batches(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    chance = Random(1)
    # The first ones in line are in flight each time.
    patient = {"quarantine_after": 10}
    with fleet(postgres_url, redis_server, tmp_path, script=Script(delay_seconds=0.04), **patient) as one:
        one.queue(MESSAGES, domains=DOMAINS)
        for number in range(3):
            with one.worker(f"victim{number}", concurrency=THREADS) as victim:
                # All of a domain's is leased at first; more leases than domains are shares of those.
                enough = _leases(one) + DOMAINS + 1
                eventually(lambda enough=enough: _leases(one) >= enough, within_seconds=20)  # type: ignore[misc]  # its type is the default's
                time.sleep(chance.random())
                victim.kill()
        # What was written to the server before is taken a moment later.
        time.sleep(1.0)
        killed = len(one.smtp.deliveries)
        with one.worker("heir", concurrency=THREADS):
            one.wait_until_all_sent(MESSAGES, timeout_seconds=60)
        taken = one.taken()
        assert {f"r{i}@d{i % DOMAINS}.test" for i in range(MESSAGES)} == set(taken)
        assert 3 * THREADS >= sum(taken.values()) - MESSAGES
        by_heir = Counter(address for delivery in one.smtp.deliveries[killed:] for address in delivery.recipients)
        assert {1} == set(by_heir.values())
