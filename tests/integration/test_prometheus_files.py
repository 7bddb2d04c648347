"""Prometheus' own tool reads our configuration, tries our alerts, and finds nothing wrong with our pages."""

import os
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from mailq.settings import Settings
from mailq.status import Delivered, DeliveryReport, Endpoint, RecipientId, Reply, SessionFacts, Stage
from mailq.testing.receivers.daemon import ReceiverMissingError, find_program
from mailq.worker.metrics import Metrics
from mailq.worker.metrics_serve import print_metrics
from tests.fakes.queue_values import sent

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "ops/prometheus"


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return find_program("usr/bin/promtool", package="prometheus", as_root=False)
    except ReceiverMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.parametrize("words", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_prometheus_takes_what_is_in_ops(promtool: Path, words: tuple[str, ...]) -> None:
    run = subprocess.run([promtool, *words], cwd=HOME, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == run.returncode, run.stdout + run.stderr
    assert "SUCCESS" in run.stdout + run.stderr


def test_prometheus_finds_nothing_wrong_with_the_page_of_the_queue(promtool: Path, sqlite_url: str) -> None:
    check(promtool, print_metrics(Settings(database_url=sqlite_url)))


def test_prometheus_finds_nothing_wrong_with_the_page_of_a_worker(promtool: Path) -> None:
    metrics = Metrics()
    metrics.watch_tasks(lambda: 1, threads=2)
    metrics.recorded([sent(RecipientId(1))])
    outcome = Delivered(
        Endpoint("mx", "192.0.2.1", 25), Reply(250, ("250 ok",)), facts=SessionFacts(stages={Stage.MAIL: 1})
    )
    metrics.attempted(DeliveryReport(outcomes={RecipientId(1): outcome}), waited_seconds=2)
    metrics.dispatched(0.1, rung=1)
    check(promtool, generate_latest(metrics.registry).decode())


def check(promtool: Path, page: str) -> None:
    """Have the page read, and its names found to be in style."""
    run = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert 0 == run.returncode, run.stdout + run.stderr
