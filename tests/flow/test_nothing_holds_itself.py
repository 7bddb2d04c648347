"""What a message is sent by goes when it is done, so that a worker need not stop for collections."""

import pytest

from mailq.envelope import CacheRule
from mailq.queue.store import Store
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import NEXTHOP, Bench
from tests.fakes.garbage import garbage_of
from tests.fakes.servers import FakeServer
from tests.fakes.world import World


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("server", [{}, {"rcpt": "450 4.2.2 full"}, {"greeting": "421 4.7.0 busy"}, {"dot": "!drop"}])
def test_a_message_leaves_nothing_behind(server: dict[str, str], *, keep: bool) -> None:
    world = World({"mx1": FakeServer(**server), "mx2": FakeServer(**server)})
    rule = CacheRule(load=keep, store=keep)

    def work() -> None:
        world.deliver(cache=rule)
        world.deliver(cache=rule)
        world.clock.advance(60)
        world.cache.close_idle()

    assert set() == garbage_of(work)


def test_a_batch_leaves_nothing_behind(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    bench = Bench(store, lease_recipients=2)
    bench.queue(*[[f"r{i}@dest.test"] for i in range(5)])
    assert set() == garbage_of(lambda: serve_nexthop(NEXTHOP, bench.runtime))
    assert 5 == len(bench.requests)
    store.close()
