"""The demonstration ends well, and would say so if it did not."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from examples import demo
from mailq.queue.states import ShownState
from mailq.queue.views import RecipientView
from mailq.testing.smtpd import Delivery

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 2, tzinfo=UTC)
REPORT = "\n".join(demo.REPORTED)


def _demonstrate() -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
    run = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env=environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert 0 == run.returncode, run.stdout + run.stderr
    assert "" == run.stderr
    return run.stdout


def _recipient(address: str) -> RecipientView:
    expected = demo.EXPECTED[address]
    return RecipientView(
        id=1,
        queue_id="0",
        sender="a@home.test",
        address=address,
        nexthop=address.partition("@")[2],
        state=expected.state,
        priority=5,
        arrived_at=NOW,
        due_at=None,
        attempts=expected.attempts,
        last_status="2.0.0",
        last_reason="",
        last_relay=f"{expected.server}[127.0.0.11]:25",
        last_attempt_at=NOW,
        finished_at=NOW,
    )


def _as_expected() -> tuple[list[RecipientView], dict[str, list[Delivery]]]:
    taken: dict[str, list[Delivery]] = {expected.server: [] for expected in demo.EXPECTED.values()}
    for address, expected in demo.EXPECTED.items():
        if expected.state is ShownState.SENT:
            taken[expected.server].append(Delivery(connection=1, sender="", recipients=(address,), content=b""))
    return [_recipient(address) for address in demo.EXPECTED], taken


def test_the_demonstration_delivers_retries_and_reports() -> None:
    shown = _demonstrate()
    assert "All 13 recipients ended as they should." == shown.strip().splitlines()[-1]
    events = re.findall(r"(\w+) +reader@greylist\.test  ", shown.partition("The failure report")[0])
    assert ["deferred", "sent"] == events
    assert "451 4.7.1 Greylisted" in shown
    assert "Diagnostic-Code: smtp; 550 5.1.1 User unknown" in shown


def test_nothing_is_surprising_when_all_is_as_expected() -> None:
    recipients, taken = _as_expected()
    assert [] == demo.surprises(recipients, taken, REPORT)


def test_a_lost_recipient_is_surprising() -> None:
    recipients, taken = _as_expected()
    (said,) = demo.surprises(recipients[1:], taken, REPORT)
    assert "customer@healthy.test: expected" in said


def test_another_state_is_surprising() -> None:
    recipients, taken = _as_expected()
    recipients[0] = replace(recipients[0], state=ShownState.EXPIRED)
    (said,) = demo.surprises(recipients, taken, REPORT)
    assert "customer@healthy.test: expected" in said


def test_a_second_copy_is_surprising() -> None:
    recipients, taken = _as_expected()
    taken["mx.healthy.test"] *= 2
    assert "customer@healthy.test: mx.healthy.test took 2 copies" in demo.surprises(recipients, taken, REPORT)


def test_a_stranger_is_surprising() -> None:
    recipients, taken = _as_expected()
    recipients.append(replace(recipients[0], address="stranger@healthy.test"))
    assert ["stranger@healthy.test: nobody expected it"] == demo.surprises(recipients, taken, REPORT)


def test_a_recipient_that_the_report_leaves_out_is_surprising() -> None:
    recipients, taken = _as_expected()
    assert ["former@reject.test: missing from the report"] == demo.surprises(recipients, taken, "nobody@reject.test")
