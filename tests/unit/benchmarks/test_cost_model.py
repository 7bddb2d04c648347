"""What an amount of mail a day needs."""

import pytest

from benchmarks.harness.cost_model import DATABASE_CORES, Need, need

MICROS = {"worker": 600.0, "postgresql": 300.0, "enqueue": 200.0, "redis": 10.0}


def test_a_million_a_day_is_a_tenth_of_a_core() -> None:
    assert (
        Need(
            per_day=864_000,
            per_second=30.0,
            worker_cores=1,
            database_cores=1,
            databases=1,
            enqueue_cores=1,
        )
        == need(864_000, MICROS)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("per_day", "worker", "database", "enqueue"), [(86_400_000, 3, 2, 1), (864_000_000, 30, 15, 10)]
)
def test_cores_grow_with_the_mail(per_day: int, worker: int, database: int, enqueue: int) -> None:
    found = need(per_day, MICROS)
    assert (worker, database, enqueue) == (found.worker_cores, found.database_cores, found.enqueue_cores)


def test_more_than_one_database_can_do_takes_several() -> None:
    found = need(8_640_000_000, MICROS)
    assert found.databases == -(-found.database_cores // DATABASE_CORES) > 1


def test_what_was_not_measured_costs_nothing() -> None:
    assert 0 == need(1_000_000, {"postgresql": 1.0}).worker_cores
