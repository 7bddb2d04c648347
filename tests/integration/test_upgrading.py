"""A fleet is upgraded while it works: two releases side by side on the newer one's schema."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from mailq.errors import SchemaError
from mailq.queue import schema
from mailq.queue.schema import migrations_home
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.testing.redisd import RedisServer
from mailq.testing.workers import environment_of
from tests.fakes.fleet import Fleet, fleet
from tests.fakes.next_release import REVISION, NextRelease
from tests.fakes.poll import eventually

pytestmark = [pytest.mark.redis, pytest.mark.postgres]


def mailq(*words: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "mailq.cli", *words]


def run(command: list[str], settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=os.environ | environment_of(settings), capture_output=True, text=True, timeout=60, check=False
    )


@contextlib.contextmanager
def program(command: list[str], settings: Settings, log: Path) -> Iterator[None]:
    """Run a worker for the time of the block, ready when entered."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, env=os.environ | environment_of(settings), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        eventually(lambda: " ready." in log.read_text() or running.poll() is not None, within_seconds=60)
        assert running.poll() is None, log.read_text()
        yield
    finally:
        running.kill()
        running.wait()


def test_a_fleet_is_upgraded_worker_by_worker_while_mail_flows(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    following = NextRelease(tmp_path)
    with (
        fleet(postgres_url, redis_server, tmp_path, worker_concurrency=4) as one,
        program(mailq("worker", "-P", "1"), one.settings, tmp_path / "before.log"),
    ):
        one.queue(20)
        one.wait_until_all_sent(20)
        migrated = run(following.command("migrate"), one.settings)
        assert (0, f"to {REVISION}.") == (migrated.returncode, migrated.stdout.strip()[-len(REVISION) - 4 :])
        # A worker of this release that is only started now, as after a crash.
        with program(mailq("worker", "-P", "1"), one.settings, tmp_path / "restarted.log"):
            one.queue(40)
            one.wait_until_all_sent(60)
            with program(following.command("worker", "-P", "1"), one.settings, tmp_path / "following.log"):
                one.queue(100)
                one.wait_until_all_sent(160)
        assert f"newer schema {REVISION}, which serves this release" in (tmp_path / "restarted.log").read_text()
        tell_of_a_newer_schema(one)


def tell_of_a_newer_schema(one: Fleet) -> None:
    again = run(mailq("migrate"), one.settings)
    assert (0, f"The schema is up to date: {REVISION}.\n") == (again.returncode, again.stdout)
    doctor = json.loads(run(mailq("doctor", "--json"), one.settings).stdout)
    (found,) = [check for check in doctor["checks"] if check["name"] == "database"]
    assert ("warn", True) == (found["grade"], REVISION in found["finding"])


def test_a_release_that_the_newer_schema_does_not_serve_is_refused(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=postgres_url)
    assert 0 == run(NextRelease(tmp_path, serves=REVISION).command("migrate"), settings).returncode
    refused = run(mailq("migrate", "--check"), settings)
    assert (78, True) == (refused.returncode, "does not serve releases of" in refused.stderr)
    with contextlib.closing(Store.open(postgres_url)) as store, pytest.raises(SchemaError, match="upgrade mailq"):
        store.check_schema()


def test_going_back_a_release_needs_no_migration_and_leaves_the_data(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=postgres_url)
    following = NextRelease(tmp_path)
    assert 0 == run(following.command("migrate"), settings).returncode
    with contextlib.closing(Store.open(postgres_url)) as store:
        store.check_schema()
        store.migrate()
        with store.engine.begin() as connection:
            assert 0 == connection.execute(text("SELECT count(*) FROM mailq_mood")).scalar_one()


def test_the_migration_of_the_next_release_can_be_taken_back(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=postgres_url)
    following = NextRelease(tmp_path)
    assert 0 == run(following.command("migrate"), settings).returncode
    assert 0 == run(following.command("migrate", "--revision", schema.head_revision()), settings).returncode
    with contextlib.closing(Store.open(postgres_url)) as store, store.engine.connect() as connection:
        assert schema.head_revision() == store.schema_revision()
        assert schema.head_revision() in connection.execute(text("SELECT revision FROM mailq_schema_serves")).scalars()


def test_waiting_for_the_schema_ends_when_somebody_has_made_it(empty_postgres_url: str) -> None:
    settings = Settings(database_url=empty_postgres_url)
    refused = run(mailq("migrate", "--check", "--wait", "0.2"), settings)
    assert (78, True) == (refused.returncode, "no tables of mailq; run mailq migrate" in refused.stderr)
    waiting = subprocess.Popen(
        mailq("migrate", "--check", "--wait", "1m"),
        env=os.environ | environment_of(settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert 0 == run(mailq("migrate"), settings).returncode
    told, _ = waiting.communicate(timeout=60)
    assert (0, f"The schema is up to date: {schema.head_revision()}.\n") == (waiting.returncode, told)


def test_each_migration_names_the_oldest_release_it_serves() -> None:
    scripts = ScriptDirectory(str(migrations_home()))
    chain = [script.revision for script in reversed(list(scripts.walk_revisions()))]
    for script in scripts.walk_revisions():
        if script.revision < "0012":
            continue
        assert script.module.serves in chain[: chain.index(script.revision) + 1]
