"""One message ends every worker that touches it, while others are on their way."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.selectors import Selector
from mailq.queue.states import ShownState
from mailq.testing.redisd import RedisServer
from tests.fakes.deadly_hook import POISON
from tests.fakes.fleet import Fleet, fleet
from tests.fakes.poll import eventually

pytestmark = [pytest.mark.redis, pytest.mark.postgres]


@contextmanager
def supervised(one: Fleet) -> Iterator[None]:
    """Start a worker again whenever it has died, as an init system does."""
    done = threading.Event()

    def run() -> None:
        number = 0
        while not done.is_set():
            with one.worker(f"life{number}", concurrency=10) as worker:
                while not done.is_set() and worker.running.poll() is None:
                    done.wait(0.05)
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(60)


def test_a_message_that_kills_its_workers_ends_in_quarantine_and_all_others_arrive(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Source: smtp-delivery Q-04, Q-45."""
    rules = {"hooks": "tests.fakes.deadly_hook:hooks", "lease_time": timedelta(seconds=1)}
    with fleet(postgres_url, redis_server, tmp_path, **rules) as one:
        one.queue(50)
        poison = NewMessage(
            sender="a@sender.test",
            recipients=(NewRecipient(address="poison@d0.test", nexthop="d0.test"),),
            content=POISON + b"\r\nMessage-ID: <p@sender.test>\r\n\r\nhello\r\n",
        )
        (queue_id,) = one.store.insert([poison])
        one.queue(50)
        with supervised(one):
            expected = {ShownState.SENT: 100, ShownState.QUARANTINED: 1}
            eventually(
                lambda: expected.items() <= {state: n for state, n in one.store.counts().items() if n}.items(),
                within_seconds=60,
            )
            notices = Selector(sender="double-bounce@client.test")
            told = eventually(lambda: one.store.list_recipients(notices, limit=10))
        (recipient,) = one.store.show(queue_id).recipients
        assert (ShownState.QUARANTINED, 3) == (recipient.state, recipient.stumbles)
        assert ["uncertain", "uncertain", "quarantined"] == [attempt.outcome for attempt in recipient.history]
        assert {f"r{i}@d{i % 20}.test" for i in range(50)} <= set(one.taken())
        assert "poison@d0.test" not in one.taken()
        assert ["postmaster@client.test"] == [each.address for each in told]
