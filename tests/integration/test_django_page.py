"""The page on Django: its code runs as it stands, in a project of its own, down to a real server."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailq.testing.smtpd import ScriptedSmtpServer, rejecting

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "django.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
SETTINGS, SENDING, SIGNALS, TESTING = BLOCKS
_SECONDS = 40.0

_MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "shop_settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
_BEFORE = """
INSTALLED_APPS = ["shop_app"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "%s"}}
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
SECRET_KEY = "not a secret"
USE_TZ = True
"""
_AFTER = """
MAILQ |= {"BROKER_URL": "memory://", "RELAYHOST": "[127.0.0.1]:%d", "NETWORK": "loopback", "DISPATCH_INTERVAL": "100ms"}
"""
_APP = """
from django.apps import AppConfig

class Shop(AppConfig):
    name = "shop_app"

    def ready(self):
        import shop_app.receivers
"""


@pytest.fixture
def server() -> Iterator[ScriptedSmtpServer]:
    """A server that takes all mail but the office's."""
    with ScriptedSmtpServer(rejecting("office@example.org")) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: ScriptedSmtpServer) -> Path:
    """A project made of the page's code, and of what the page leaves to the reader."""
    (tmp_path / "manage.py").write_text(_MANAGE)
    settings = _BEFORE % (tmp_path / "shop.sqlite3") + SETTINGS + _AFTER % server.port
    (tmp_path / "shop_settings.py").write_text(settings)
    app = tmp_path / "shop_app"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "apps.py").write_text(_APP)
    (app / "receivers.py").write_text(SIGNALS)
    (app / "tests.py").write_text(TESTING)
    return tmp_path


def command(*words: str) -> list[str]:
    """The words of a command of the project."""
    return [sys.executable, "manage.py", *words]


def environment() -> dict[str, str]:
    """The environment of a project: nothing of ours but the checkout."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAILQ_", "DJANGO_"))}
    return own | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def manage(project: Path, *words: str) -> str:
    """Run a command of the project, and return what it wrote."""
    done = subprocess.run(
        command(*words), cwd=project, env=environment(), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_for(words: str, log: Path, worker: "subprocess.Popen[bytes]") -> str:
    """Wait until a worker has said *words*, and return all that it said."""
    deadline = time.monotonic() + _SECONDS
    while words not in (said := log.read_text(errors="replace")):
        assert worker.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    return said


def test_the_page_from_settings_to_the_server_and_to_the_signals(project, server) -> None:
    manage(project, "migrate", "--verbosity=0")
    assert "no issues" in manage(project, "check", "--database=default")
    sent = manage(project, "shell", "-c", SENDING)
    assert "ann@example.net" in sent
    log = project / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command("mailq_worker", "--concurrency=4"),
            cwd=project,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        # Both messages, and the report of the one recipient that is refused.
        server.wait_for(3, timeout_seconds=_SECONDS)
        # The receiver on the page prints it.
        said = wait_for("office@example.org bounced with 5.1.1", log, worker)
    finally:
        worker.terminate()
        worker.wait(_SECONDS)
    assert 0 == worker.returncode, said
    delivered = sorted(recipient for delivery in server.deliveries for recipient in delivery.recipients)
    assert ["ann@example.net", "ann@example.net", "shop@example.org"] == delivered
    listed = manage(project, "mailq_history", "--json")
    assert "office@example.org" in listed


def test_the_tests_on_the_page_pass_as_djangos_runner_runs_them(project) -> None:
    assert "OK" in manage(project, "test", "shop_app")
