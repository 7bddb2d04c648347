"""A fleet under watch: Flower, the queue's metrics and a JSON log, each a process of its own, while mail goes out."""

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from mailq.queue.audit import By
from mailq.settings import Settings
from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import rejecting
from mailq.testing.workers import environment_of
from tests.fakes.fleet import Fleet, fleet
from tests.fakes.poll import eventually

PASSWORD = "correct horse"  # a loopback one
SENT, REFUSED = 11, 1


@contextlib.contextmanager
def running(settings: Settings, folder: Path, *words: str) -> Iterator[Path]:
    """Run a command of mailq; yields its log. It must end well when it is told to."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
    path = folder / f"{words[0]}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailq.cli", *words], env=inherited | environment_of(settings), stderr=log
        )
    try:
        yield path
        process.terminate()
        assert 0 == process.wait(30), path.read_text()
    finally:
        process.kill()
        process.wait()


def address_in(log: Path, pattern: str) -> str:
    def look() -> str:
        found = re.search(pattern, log.read_text())
        return found[1] if found else ""

    return eventually(look, within_seconds=30)


def get(url: str, *, login: str = "", method: str = "GET") -> tuple[int, str]:
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
    request = Request(url, headers=headers, method=method, data=b"" if method == "POST" else None)
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.redis
def test_a_fleet_is_watched_and_shows_no_address(redis_server: RedisServer, sqlite_url: str, tmp_path: Path) -> None:
    settings = {
        "flower_password": PASSWORD,
        "log_format": "json",
        "log_addresses": "domain",
        "notify_classes": (),
        "transport_maps": ("sender.test=d1.test",),
    }
    script = rejecting("r0@d0.test")
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(fleet(sqlite_url, redis_server, tmp_path, script=script, **settings))
        flower_log = stack.enter_context(running(one.settings, tmp_path, "flower", "--port", "0"))
        metrics_log = stack.enter_context(running(one.settings, tmp_path, "metrics", "--address", ":0"))
        worker_log = stack.enter_context(running(one.settings, tmp_path, "worker", "-c", "10"))
        flower = address_in(flower_log, r"Flower is at (http://127\.0\.0\.1:\d+)/")
        metrics = address_in(metrics_log, r"Metrics are at (http://127\.0\.0\.1:\d+/metrics)")
        eventually(lambda: " ready." in worker_log.read_text(), within_seconds=30)
        one.queue(SENT + REFUSED, domains=3)
        # The report about the refused one goes to its sender.
        one.smtp.wait_for(SENT + 1)
        _flower_shows_nexthops_and_counts(flower)
        _flower_lets_nobody_in_and_nothing_be_done(flower)
        _the_queue_is_shown(metrics, one)
    _the_log_has_each_outcome(worker_log)


def _flower_shows_nexthops_and_counts(flower: str) -> None:
    login = f"mailq:{PASSWORD}"

    def tasks() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for task in json.loads(get(f"{flower}/api/tasks", login=login)[1]).values():
            found.setdefault(task["args"], set()).add(str(task["result"]))
        return found

    def counted(word: str) -> int:
        return sum(
            int(n) for results in tasks().values() for line in results for n in re.findall(rf"{word} (\d+)", line)
        )

    # Flower may have begun to listen in the middle: it is asked for what it saw.
    eventually(lambda: {"d0.test", "d1.test", "d2.test"} <= tasks().keys(), within_seconds=20)
    eventually(lambda: counted("sent") >= 1, within_seconds=20)
    assert "@" not in json.dumps(sorted(map(str, tasks().items())))
    page = get(f"{flower}/tasks", login=login)
    assert 200 == page[0]
    assert "r0@" not in page[1]


def _flower_lets_nobody_in_and_nothing_be_done(flower: str) -> None:
    assert [401] * 4 == [get(flower + path)[0] for path in ("/", "/tasks", "/api/tasks", "/metrics")]
    assert 401 == get(f"{flower}/", login="mailq:wrong")[0]
    assert 200 == get(f"{flower}/healthcheck")[0]
    for order in ("worker/shutdown/celery@x", "task/send-task/mailq.deliver", "worker/pool/grow/celery@x"):
        assert 403 == get(f"{flower}/api/{order}", login=f"mailq:{PASSWORD}", method="POST")[0]


def _the_queue_is_shown(metrics: str, one: Fleet) -> None:
    eventually(lambda: 'mailq_queue_recipients{state="active"} 0.0' in get(metrics)[1], within_seconds=20)
    page = get(metrics)[1]
    assert "mailq_database_up 1.0" in page
    assert "mailq_broker_up 1.0" in page
    assert "mailq_dispatchers 1.0" in page
    assert "@" not in page
    one.store.suspend("d5.test", by=By())
    one.queue(6, domains=6, ring=False)
    eventually(lambda: 'mailq_site_recipients{nexthop="d5.test",state="due"} 1.0' in get(metrics)[1], within_seconds=20)
    assert 'mailq_limit_sessions{key="nexthop:d5.test"}' in get(metrics)[1]


def _the_log_has_each_outcome(log: Path) -> None:
    records = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    events = [one for one in records if one["event"] in {"sent", "bounced"}]
    assert {"***@d0.test"} == {one["recipient"] for one in events if one["event"] == "bounced"}
    assert len(events) >= SENT + REFUSED
    assert all(one["lease"] and one["queue_id"] and one["session"] for one in events)
    assert "r0@" not in log.read_text()


def test_flower_does_not_start_without_a_password(sqlite_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=sqlite_url, broker_url="redis://127.0.0.1:1/0")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
    run = subprocess.run(
        [sys.executable, "-m", "mailq.cli", "flower", "--port", "0"],
        env=environ | environment_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 78 == run.returncode
    assert "MAILQ_FLOWER_PASSWORD" in run.stderr
