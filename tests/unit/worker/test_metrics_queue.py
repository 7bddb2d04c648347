"""The page of the queue: how often it looks, what it shows, and what never becomes a label."""

from dataclasses import replace
from datetime import timedelta

import pytest

from mailq.errors import BrokerUnavailableError, DatabaseUnavailableError
from mailq.queue.gauges import KeyGauge, QueueGauges, SiteGauge
from mailq.worker.metric_names import METRICS, Page
from mailq.worker.metrics_queue import KeyUse, QueueMetrics, Spaced

MINUTE = timedelta(minutes=1)
GAUGES = QueueGauges(
    total=SiteGauge(nexthop="", due=10, blocked=4, later=7, oldest=2 * MINUTE),
    sites=[
        SiteGauge(nexthop="a.test", due=6, later=1, oldest=2 * MINUTE),
        SiteGauge(nexthop="b.test", blocked=4),
    ],
    active=3,
    held=2,
    quarantined=1,
    uncertain=5,
    fresh=8,
    leases=4,
    leases_expired=1,
    owners=2,
    dispatcher="host1:17:abcd",
    lag=timedelta(seconds=3),
    dead=1,
    dead_for=MINUTE,
    suspensions=1,
    suspended_for=MINUTE,
    parked=[KeyGauge(key="site:mx.a.test", waiting=9, oldest=MINUTE)],
    parked_total=11,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """A queue whose looks take as long as is said."""

    def __init__(self, gauges=GAUGES, keys=(), rings=0) -> None:
        self.clock = Clock()
        self.gauges = gauges
        self.takes = 0.0
        self.looks = 0
        self.spaced = Spaced(
            queue=self._look,
            keys=lambda _: self._or_raise(keys),
            rings=lambda: self._or_raise(rings),
            monotonic=self.clock,
        )
        self.metrics = QueueMetrics(self.spaced, monotonic=self.clock)

    def _look(self):
        self.looks += 1
        self.clock.now += self.takes
        return self._or_raise(self.gauges)

    def _or_raise(self, value):
        if isinstance(value, Exception):
            raise value
        return value

    def page(self):
        return {
            (sample.name.removeprefix("mailq_"), *sample.labels.values()): sample.value
            for family in self.metrics.collect()
            for sample in family.samples
        }


def test_the_page_says_what_the_look_found():
    page = World(rings=12).page()
    assert 10 == page["queue_recipients", "due"]
    assert 3 == page["queue_recipients", "active"]
    assert 120 == page["queue_oldest_due_seconds",]
    assert 1 == page["dispatcher", "host1"]
    assert 3 == page["dispatcher_lag_seconds",]
    assert 12 == page["rings",]
    assert 9 == page["waiting_nexthops", "site:mx.a.test"]


def test_what_has_no_series_of_its_own_is_other_so_the_sum_is_right():
    page = World().page()
    assert 4 == page["site_recipients", "other", "due"]
    assert 6 == page["site_recipients", "other", "later"]
    assert 0 == page["site_recipients", "other", "blocked"]
    assert 2 == page["waiting_nexthops", "other"]
    sites = {name: value for name, value in page.items() if name[0] == "site_recipients"}
    assert 21 == sum(sites.values())


def test_only_a_destination_with_mail_that_is_due_has_an_age():
    page = World().page()
    assert 120 == page["site_oldest_due_seconds", "a.test"]
    assert ("site_oldest_due_seconds", "b.test") not in page


def test_limits_are_shown_but_for_keys_that_hold_an_address():
    keys = [KeyUse(key="nexthop:a.test", most=5, busy=4), KeyUse(key="account:ann@example.org", most=2, busy=1)]
    gauges = replace(GAUGES, parked=[KeyGauge(key="account:ann@example.org", waiting=3, oldest=MINUTE)])
    page = World(gauges, keys=keys).page()
    assert 5 == page["limit_sessions", "nexthop:a.test"]
    assert 4 == page["limit_busy_sessions", "nexthop:a.test"]
    assert [] == [name for name in page if "@" in " ".join(name)]
    assert 11 == page["waiting_nexthops", "other"]


def test_without_a_dispatcher_nobody_is_named():
    page = World(replace(GAUGES, dispatcher="")).page()
    assert 0 == page["dispatchers",]
    assert [] == [name for name in page if name[0] == "dispatcher"]


def test_a_second_look_costs_nothing_while_it_is_early():
    world = World()
    world.page()
    world.clock.now += 0.5
    world.page()
    assert 1 == world.looks
    world.clock.now += 0.6
    world.page()
    assert 2 == world.looks


@pytest.mark.parametrize("seconds", [0.2, 1.0, 20.0])
def test_looks_take_a_twentieth_of_the_time_however_long_one_takes(seconds):
    world = World()
    world.takes = seconds
    began = world.clock.now
    spent = 0.0
    while world.clock.now < began + 2000 * seconds:
        before = world.looks
        world.page()
        spent += (world.looks - before) * seconds
        world.clock.now += seconds / 4
    assert 0.03 < spent / (world.clock.now - began) <= 0.0501


def test_the_page_says_how_old_its_figures_are():
    world = World()
    world.takes = 2.0
    world.page()
    world.clock.now += 30
    page = world.page()
    assert 32 == page["gauges_age_seconds",]
    assert 2 == page["gauges_read_seconds",]


def test_a_database_that_is_down_is_told_and_no_old_figure_with_it(caplog):
    world = World()
    world.page()
    world.gauges = DatabaseUnavailableError("gone")
    world.clock.now += 60
    page = world.page()
    assert 0 == page["database_up",]
    assert 1 == page["broker_up",]
    assert [] == [name for name in page if name[0].startswith(("queue_", "site_", "limit_"))]
    assert "cannot tell of the queue: gone" in caplog.text


def test_a_broker_that_is_down_is_told_and_the_queue_is_shown():
    page = World(rings=BrokerUnavailableError("gone")).page()
    assert 0 == page["broker_up",]
    assert ("rings",) not in page
    assert 10 == page["queue_recipients", "due"]


def test_a_fault_of_ours_in_one_part_leaves_the_others(caplog):
    page = World(keys=ZeroDivisionError()).page()
    assert 10 == page["queue_recipients", "due"]
    assert "ZeroDivisionError" in caplog.text


def test_where_processes_share_no_broker_none_is_spoken_of():
    clock = Clock()
    metrics = QueueMetrics(Spaced(queue=lambda: GAUGES, keys=lambda _: (), monotonic=clock), monotonic=clock)
    assert [] == [family.name for family in metrics.collect() if family.name in {"mailq_broker_up", "mailq_rings"}]


def test_every_metric_of_the_table_is_shown_and_no_other():
    world = World(keys=[KeyUse(key="nexthop:a.test", most=5, busy=4)])
    table = {name for name, one in METRICS.items() if one.page is Page.QUEUE}
    assert table == {family.name for family in world.metrics.collect()}
    assert table == {family.name for family in world.metrics.describe()}


def test_registering_looks_at_nothing():
    assert 0 == World().looks
