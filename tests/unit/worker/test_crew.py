"""How many processes a worker has, where each shows its metrics, and when one that died is begun anew."""

import pytest

from mailq.errors import SettingError
from mailq.settings import Settings
from mailq.worker.crew import next_pause
from mailq.worker.main import process_count
from mailq.worker.metrics_page import with_port_behind

POSTGRES = "postgresql://db/queue"
REDIS = "redis://broker"


@pytest.mark.parametrize(
    ("pause", "lived", "expected"),
    [
        (0.0, 0.0, 1.0),
        (1.0, 0.0, 2.0),
        (2.0, 59.9, 4.0),
        (16.0, 1.0, 30.0),
        (30.0, 1.0, 30.0),
        (30.0, 60.0, 1.0),
        (0.0, 3600.0, 1.0),
    ],
)
def test_a_process_that_dies_at_once_again_and_again_is_begun_less_and_less_often(pause, lived, expected):
    assert expected == next_pause(pause, lived_seconds=lived)


@pytest.mark.parametrize(
    ("wanted", "database", "broker", "processors", "expected"),
    [
        (0, POSTGRES, REDIS, 1, 1),
        (0, POSTGRES, REDIS, 3, 3),
        (0, POSTGRES, REDIS, 64, 4),
        (0, "sqlite:///queue.db", REDIS, 8, 1),
        (0, POSTGRES, "memory://", 8, 1),
        (1, POSTGRES, REDIS, 8, 1),
        (9, POSTGRES, REDIS, 2, 9),
        (2, "sqlite:///queue.db", "memory://", 1, 2),
    ],
)
def test_a_worker_has_the_processes_it_was_told_or_those_there_is_use_for(
    wanted, database, broker, processors, expected
):
    settings = Settings(worker_processes=wanted, database_url=database, broker_url=broker)
    assert expected == process_count(settings, processors=processors)


@pytest.mark.parametrize(
    ("address", "number", "expected"),
    [
        ("", 3, ""),
        (":9111", 0, ":9111"),
        (":9111", 1, ":9112"),
        ("0.0.0.0:9111", 3, "0.0.0.0:9114"),
        ("[::1]:9111", 1, "[::1]:9112"),
        (":65534", 1, ":65535"),
        # Any free port, which is another for each.
        (":0", 2, ":0"),
    ],
)
def test_each_process_shows_its_metrics_at_the_port_behind_that_of_the_one_before(address, number, expected):
    assert expected == with_port_behind(address, number)


@pytest.mark.parametrize(("address", "said"), [(":65535", "no port for worker process 2"), ("9111", "must be host")])
def test_a_page_of_metrics_that_cannot_be_is_refused(address, said):
    with pytest.raises(SettingError, match=said):
        with_port_behind(address, 1)
