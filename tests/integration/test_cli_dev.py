"""``mailq dev`` as a process: mail queued beside it is caught and printed, and nothing leaves the machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailq import Queue, Settings
from mailq.cli.development import caught

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 30.0


def _environ(tmp_path: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
    return {**clean, "PYTHONPATH": str(_ROOT), "MAILQ_DATABASE_URL": f"sqlite:///{tmp_path}/queue.db"}


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running ``mailq dev`` that has said it is ready; it writes to the files ``out`` and ``err``."""
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        command = [sys.executable, "-m", "mailq.cli", "dev"]
        process = subprocess.Popen(command, env=_environ(tmp_path), stdout=out, stderr=err)
        try:
            _wait_for_lines(tmp_path / "err", 4)
            yield process
        finally:
            process.kill()
            process.wait(_PATIENCE_SECONDS)


def _wait_for_lines(path: Path, count: int) -> list[str]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) >= count:
            return lines
        time.sleep(0.05)
    raise TimeoutError(path.read_text(encoding="utf-8"))


def test_mail_is_caught_printed_and_the_process_ends_when_told(dev: subprocess.Popen[bytes], tmp_path: Path) -> None:
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", settings=Settings())
    queue.send(sender="ann@example.org", to=["bob@nowhere.example"], subject="Hi", text="It works.")
    queue.close()

    printed = _wait_for_lines(tmp_path / "out", 3)
    dev.send_signal(signal.SIGTERM)

    assert printed[0].startswith("── ann@example.org → bob@nowhere.example (")
    assert printed[1:] == ["   Hi", "   │ It works."]
    assert dev.wait(_PATIENCE_SECONDS) == 0


@pytest.mark.parametrize(
    ("said", "environ"),
    [
        ("mail waits in the queue, such as", {}),
        ("mailq dev uses a SQLite file", {"MAILQ_DATABASE_URL": "postgresql://127.0.0.1:1/mail"}),
    ],
)
def test_mail_that_was_to_be_delivered_is_not_caught(said: str, environ: dict[str, str], tmp_path: Path) -> None:
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", settings=Settings())
    queue.send(sender="ann@example.org", to=["bob@nowhere.example"], subject="Hi", text="Hello")

    run = subprocess.run(
        [sys.executable, "-m", "mailq.cli", "dev"],
        env={**_environ(tmp_path), **environ},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )

    assert run.returncode == 78
    assert said in run.stderr
    assert len(queue.find(states=["queued"])) == 1
    queue.close()


def test_what_is_caught_can_go_nowhere_else() -> None:
    settings = caught(Settings(relayhost="[relay]", transport_maps=("x.org=[x]",)), "127.0.0.1:53", 2525)

    assert settings.network == "loopback"
    assert settings.tcp_port == "2525"
    assert settings.relayhost == ""
    assert settings.transport_maps == ()
