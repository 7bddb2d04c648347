"""The services of docker-compose.yml as processes: a fleet comes up, and a worker more takes its share at once."""

import os
import urllib.error
import urllib.request

import pytest

from mailq.testing.postgres import ServerProgramsMissingError, find_binaries
from mailq.testing.redisd import find_redis_server
from scripts import fleet_show
from scripts.fleet import introduce
from scripts.fleet_processes import Fleet

pytestmark = [pytest.mark.redis, pytest.mark.postgres]
TRIAL = fleet_show.Trial(messages=900, sessions=6, think_seconds=0.15)


def missing() -> str:
    if find_redis_server() is None:
        return "no redis-server program"
    try:
        find_binaries()
    except ServerProgramsMissingError as error:
        return str(error)
    return ""


@pytest.mark.skipif(bool(missing()) and "CI" not in os.environ, reason=f"NOT TESTED AS A FLEET: {missing()}")
def test_a_worker_that_is_added_takes_its_share_at_once_and_flower_shows_it() -> None:
    told: list[str] = []
    with Fleet(variables=TRIAL.variables, say=told.append) as fleet:
        assert ["flower", "metrics", "redis", "sink"] == sorted(set(fleet.others) - {"prometheus"})
        outcome = fleet_show.run(fleet, TRIAL, say=told.append)
        assert [] == list(outcome.problems()), "\n".join([*told, *fleet_show.table(outcome)])
        lines = "\n".join(introduce(fleet))
        assert fleet.url("flower", "5555") in lines
        assert "MAILQ_DATABASE_URL_FILE=" in lines
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(fleet.url("flower", "5555") + "/tasks", timeout=10)
        assert_metrics_are_shown(fleet)
    assert [] == [one.name for one in (*fleet.workers, *fleet.others.values()) if one.process.poll() is None]


def assert_metrics_are_shown(fleet: Fleet) -> None:
    pages = {"metrics": fleet.url("metrics", "9108"), "worker": fleet.url("worker-3", "9111")}
    shown = {name: urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode() for name, url in pages.items()}
    assert {"metrics": True, "worker": True} == {name: "mailq_" in page for name, page in shown.items()}


def test_a_worker_that_does_not_take_its_share_is_told() -> None:
    shares = {"worker-1": 50, "worker-2": 50, "worker-3": 1}
    outcome = fleet_show.Outcome(
        queued=2,
        before=shares,
        at_once=shares,
        after={"worker-1": 10, "worker-2": 10, "worker-3": 10},
        sent=fleet_show.Counter({"r1@d1.test": 2}),
        taken=1,
        tasks=[{"args": "b@d1.test", "kwargs": "", "result": "nothing to do"}],
    )
    assert [
        "1 of 2 recipients were sent to, some 2 times",
        "the sink took 1 messages of 2",
        "the new worker did 1 of 101 attempts at once",
        "the new worker did 11 of 131 attempts from then on",
        "Flower shows no counts",
        "Flower shows an address",
    ] == list(outcome.problems())
