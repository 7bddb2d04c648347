"""The benchmarks run, as a whole and small: mailq beside Postfix, every message once."""

import subprocess
import sys
from pathlib import Path

import pytest

from mailq.testing.receivers.daemon import ReceiverMissingError, find_program

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.postgres, pytest.mark.redis]


@pytest.mark.timeout(240)
def test_mailq_and_postfix_are_compared_and_every_message_arrives_once() -> None:
    try:
        find_program("usr/sbin/smtp-sink", package="postfix")
    except ReceiverMissingError as missing:
        pytest.skip(str(missing))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--quick"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("mailq ", "postfix "))]
    assert 0 == done.returncode, done.stdout + done.stderr
    # delivered (the warm-up with it), twice, missing
    assert {"mailq": ["220", "0", "0"], "postfix": ["220", "0", "0"]} == {cells[0]: cells[7:10] for cells in lines}
