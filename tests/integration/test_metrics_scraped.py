"""The metrics of a worker that runs, read over HTTP."""

import logging
import re
from pathlib import Path
from urllib.request import urlopen

import pytest

from mailq.errors import SettingError
from mailq.settings import Settings
from mailq.testing.smtpd import rejecting
from mailq.worker.embedded import embedded
from mailq.worker.wiring import build_runtime
from tests.fakes.fleet import fleet
from tests.fakes.poll import eventually

WHERE = re.compile(r"Metrics are at (http://127\.0\.0\.1:\d+/metrics)")


def test_a_running_worker_shows_what_it_did(sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = rejecting("r0@d0.test")
    settings = {"metrics_address": "127.0.0.1:0", "notify_classes": (), "transport_maps": ("sender.test=d1.test",)}
    with (
        caplog.at_level(logging.INFO, "mailq.worker.metrics_page"),
        fleet(sqlite_url, None, tmp_path, script=script, **settings) as one,
        embedded(one.settings),
    ):
        found = WHERE.search(caplog.text)
        assert found is not None
        one.queue(3, ring=False)
        # Two messages, and the report about the third.
        one.smtp.wait_for(3)

        def page() -> str:
            with urlopen(found[1], timeout=10) as answer:
                text: str = answer.read().decode()
            return text

        eventually(lambda: 'mailq_outcomes_total{outcome="sent",status="2.0"} 3.0' in page())
        text = page()
        assert 'mailq_outcomes_total{outcome="bounced",status="5.1"} 1.0' in text
        assert "mailq_sessions_total{" in text
        assert "@" not in text
        assert "d0.test" not in text


def test_an_address_that_cannot_be_meant_stops_the_start(sqlite_url: str) -> None:
    with pytest.raises(SettingError, match="metrics_address"):
        build_runtime(Settings(database_url=sqlite_url, metrics_address="everywhere"))
