"""django-post-office on PostgreSQL, its ``send_queued_mail`` running all the time with two processes of ten threads."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from benchmarks.harness.system import ROOT, Place, System, clean_environment, start_process
from mailq.testing.postgres import PostgresServer

_LEFT = "SELECT count(*) FROM post_office_email WHERE status IS DISTINCT FROM 0"


class PostOffice(System):
    """All mail goes to one server, which Django's settings name."""

    name: ClassVar[str] = "post-office"
    _postgres: PostgresServer
    _url: str
    _worker: int

    def start(self, place: Place, stack: ExitStack) -> None:
        """Start PostgreSQL, make the tables, start the sender."""
        self.place = place
        self._postgres = stack.enter_context(PostgresServer())
        self._url = self._postgres.create_database("django")
        environment = dict(self.environment())
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, env=environment, cwd=place.folder, check=True, timeout=60)
        command = [sys.executable, "-m", "benchmarks.peers.post_office_worker"]
        log = place.folder / "post_office.log"
        self._worker = start_process(stack, command, log, env=environment, cwd=place.folder).pid

    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return the sender with its processes, and PostgreSQL."""
        return {"worker": [self._worker], "postgresql": [self._postgres.pid]}

    def injection(self) -> Mapping[str, Any]:
        """Return nothing but its kind."""
        return {"kind": "post_office"}

    def environment(self) -> Mapping[str, str]:
        """Return the settings of a Django project."""
        path = f"{ROOT}:{Path(sys.prefix) / 'bench'}"
        more = {"BENCH_DATABASE": self._url, "BENCH_SERVER": f"127.0.0.1:{self.place.port}"}
        settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.peers.post_office_settings"}
        return clean_environment(**more, **settings) | {"PYTHONPATH": path}

    def left(self) -> int:
        """Ask the database."""
        with psycopg.connect(self._url) as connection:
            row = connection.execute(_LEFT).fetchone()
        return int(row[0]) if row else 0

    def log(self) -> str:
        """Return the sender's log's end."""
        return (self.place.folder / "post_office.log").read_text(errors="replace")[-3000:]
