"""The private PostgreSQL server that tests run on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from mailq.errors import InfrastructureError
from mailq.testing import postgres
from mailq.testing.postgres import PostgresServer, ServerProgramsMissingError

pytestmark = pytest.mark.postgres

PROGRAM = """
import sys
from mailq.testing.postgres import PostgresServer
with PostgresServer(fsync=False) as server:
    print(server.pid, server.url(), flush=True)
    sys.stdin.read()
"""


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


def test_a_server_is_gone_with_its_process_even_if_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid, url = owner.stdout.readline().split()
        psycopg.connect(url.decode()).close()
        os.kill(owner.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while is_running(int(pid)):
        assert time.monotonic() < deadline, "the server outlived its process"
        time.sleep(0.02)


def test_a_server_keeps_its_data_and_its_address_over_a_restart() -> None:
    with PostgresServer(fsync=False) as server:
        url, pid = server.url(), server.pid
        server.execute("CREATE TABLE kept (word text)")
        server.restart()
        server.execute("INSERT INTO kept VALUES ('here')")
        assert (url, True) == (server.url(), server.pid != pid)
        server.stop()
        server.stop()
        with pytest.raises(InfrastructureError, match="not running"):
            _ = server.pid


def test_missing_programs_are_named_with_their_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "_SYSTEM_BINARIES", tmp_path)
    with pytest.raises(ServerProgramsMissingError, match="install the package postgresql"):
        PostgresServer()
