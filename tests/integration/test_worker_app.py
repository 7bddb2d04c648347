"""The Celery application: its tasks, how it is found, and how a worker begins and ends."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.thread import TaskPool as ThreadPool

from mailq.broker import DELIVER_QUEUE, DELIVER_TASK, DISPATCH_TASK, make_celery
from mailq.errors import SchemaError, SettingError
from mailq.limits.gates import Gate
from mailq.limits.local_limits import LocalLimits
from mailq.limits.shelf_limits import ShelfLimits
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.testing.redisd import RedisServer
from mailq.testing.workers import environment_of
from mailq.worker.app import make_app
from mailq.worker.embedded import embedded
from mailq.worker.host import HostStep, MailqApp
from mailq.worker.main import run_worker
from mailq.worker.wiring import make_limits, new_owner, with_hostname
from tests.fakes.poll import eventually

# Settings for loopback alone refuse it before anything leaves the machine.
NEXTHOP = "[192.0.2.1]"
MESSAGE = NewMessage(
    sender="a@sender.test",
    recipients=(NewRecipient(address="b@dest.test", nexthop=NEXTHOP),),
    content=b"From: a@sender.test\r\n\r\n",
)


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=60, check=False)


def unroutable(sqlite_url: str) -> Settings:
    """Settings under which delivery fails at once, without asking anybody."""
    return Settings(database_url=sqlite_url, myhostname="client.test", network="loopback")


def close(app: MailqApp) -> None:
    app.host.close()
    app.close()


def test_the_deliver_task_serves_the_nexthop_it_names(sqlite_url: str) -> None:
    app = make_app(unroutable(sqlite_url))
    store = app.host.runtime().store
    store.insert([MESSAGE])
    app.tasks[DELIVER_TASK](nexthop=NEXTHOP, v=1)
    assert 1 == store.counts()[ShownState.DEFERRED]
    close(app)


@pytest.mark.parametrize(
    "payload",
    [{"nexthop": NEXTHOP}, {"nexthop": NEXTHOP, "v": 2}, {"nexthop": NEXTHOP, "v": 1, "new": 1}, {"v": 1}],
)
def test_a_ring_of_another_release_is_ignored(sqlite_url: str, payload: dict[str, object]) -> None:
    app = make_app(unroutable(sqlite_url))
    store = app.host.runtime().store
    store.insert([MESSAGE])
    app.tasks[DELIVER_TASK](**payload)
    assert 1 == store.counts()[ShownState.QUEUED]
    close(app)


def test_the_dispatch_task_runs_one_round(sqlite_url: str) -> None:
    app = make_app(unroutable(sqlite_url))
    store = app.host.runtime().store
    store.insert([MESSAGE])
    app.tasks[DISPATCH_TASK]()
    assert 0 == store.notice_new(limit=10)
    assert [] == store.due_nexthops(limit=10, ring_timeout=timedelta(minutes=1))
    close(app)


def test_two_applications_in_one_process_keep_their_tasks_apart(sqlite_url: str, tmp_path: Path) -> None:
    first = make_app(unroutable(sqlite_url))
    second = make_app(unroutable(f"sqlite:///{tmp_path / 'other.db'}"))
    first.host.runtime().store.insert([MESSAGE])
    second.host.runtime().store.migrate()
    second.tasks[DELIVER_TASK](nexthop=NEXTHOP, v=1)
    assert 1 == first.host.runtime().store.counts()[ShownState.QUEUED]
    close(first)
    close(second)


def test_importing_the_application_reads_no_settings_and_using_it_does() -> None:
    program = "import mailq.worker.app as module; print('imported'); module.app"
    done = run_python(program, MAILQ_RELAYHOSTT="x")
    assert "imported\n" == done.stdout
    assert "relayhost" in done.stderr


def test_celery_finds_the_application_with_the_settings_of_the_environment(tmp_path: Path) -> None:
    program = (
        "from celery.app.utils import find_app; app = find_app('mailq.worker.app');"
        "print(app.main, app.conf.worker_concurrency, sorted(t for t in app.tasks if t.startswith('mailq')))"
    )
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'queue.db'}", worker_concurrency=3)
    done = run_python(program, **environment_of(settings))
    assert "mailq 3 ['mailq.deliver', 'mailq.dispatch']\n" == done.stdout, done.stderr


def test_a_number_of_sessions_given_at_the_start_goes_before_the_setting(tmp_path: Path) -> None:
    with embedded(unroutable(f"sqlite:///{tmp_path / 'new.db'}"), concurrency=3) as runtime:
        assert 3 == runtime.settings.worker_concurrency


def test_celerys_own_number_of_threads_goes_before_the_setting(sqlite_url: str) -> None:
    app = make_app(unroutable(sqlite_url))
    HostStep(SimpleNamespace(app=app, pool_cls=ThreadPool, steps=[], concurrency=7))
    assert 7 == app.host.runtime().settings.worker_concurrency
    close(app)


def test_an_embedded_worker_makes_its_own_sqlite_file(tmp_path: Path) -> None:
    with embedded(unroutable(f"sqlite:///{tmp_path / 'new.db'}")) as runtime:
        assert runtime.store.head_revision() == runtime.store.schema_revision()


@pytest.mark.postgres
def test_a_worker_does_not_start_on_a_server_that_is_not_migrated(empty_postgres_url: str) -> None:
    settings = Settings(database_url=empty_postgres_url, myhostname="client.test")
    with pytest.raises(SchemaError, match="mailq migrate"), embedded(settings):
        pass
    for processes in (1, 2):
        with pytest.raises(SchemaError, match="mailq migrate"):
            run_worker(settings, processes=processes)


def test_a_worker_whose_processes_have_no_ports_for_their_metrics_does_not_start(sqlite_url: str) -> None:
    settings = replace(unroutable(sqlite_url), metrics_address=":65535")
    with pytest.raises(SettingError, match="no port for worker process 2"):
        run_worker(settings, processes=2)


def test_the_worker_program_stops_at_term_with_success(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from mailq.settings_sources import load; from mailq.worker import main, host;"
        "opened = host.Host.open;\n"
        "def open_and_stop(self):\n"
        "    opened(self)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "host.Host.open = open_and_stop\n"
        "sys.exit(main.run_worker(load(), concurrency=2))"
    )
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'queue.db'}", myhostname="client.test")
    done = run_python(program, **environment_of(settings))
    assert 0 == done.returncode, done.stderr


def test_a_task_that_starts_when_all_is_closed_leaves_its_mail_to_others(sqlite_url: str) -> None:
    app = make_app(unroutable(sqlite_url))
    runtime = app.host.runtime()
    runtime.store.insert([MESSAGE])
    app.host.close()
    app.tasks[DELIVER_TASK](nexthop=NEXTHOP, v=1)
    assert runtime is app.host.runtime()
    assert 1 == runtime.store.counts()[ShownState.QUEUED]
    close(app)


def test_the_prefork_pool_is_warned_about(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(unroutable(sqlite_url))
    HostStep(SimpleNamespace(app=app, pool_cls=PreforkPool, steps=[]))
    assert ["The prefork pool needs a process for every session; use --pool=threads"] == caplog.messages
    app.close()


def test_owners_differ_even_within_a_process() -> None:
    assert new_owner() != new_owner()


def test_a_hostname_is_found_where_none_is_set_and_kept_where_one_is() -> None:
    assert "client.test" == with_hostname(Settings(myhostname="client.test")).myhostname
    assert with_hostname(Settings()).myhostname


@pytest.mark.redis
def test_redis_counts_sessions_where_it_is_the_broker(redis_server: RedisServer, store: Store) -> None:
    limits = make_limits(Settings(broker_url=redis_server.url, key_prefix="ours:"), store)
    limits.admit([Gate(key="a")], owner="worker", hold_for=timedelta(minutes=1))
    with redis_server.client() as client:
        names = client.keys("*")
    assert names
    assert all(name.startswith(b"ours:") for name in names)
    limits.close()


def test_without_redis_the_database_counts_sessions_and_with_a_broker_in_memory_the_process(store: Store) -> None:
    assert isinstance(make_limits(Settings(), store), LocalLimits)
    assert isinstance(make_limits(Settings(broker_url="amqp://h//"), store), ShelfLimits)


@pytest.mark.redis
def test_celery_fetches_no_more_rings_than_threads_are_left_to_it(
    redis_server: RedisServer, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, apps = [], threading.Event(), []
    monkeypatch.setattr(
        "mailq.worker.tasks.serve_nexthop", lambda nexthop, _runtime: (begun.append(nexthop), gate.wait(30))
    )

    def make(*given: Any, **named: Any) -> MailqApp:
        apps.append(make_app(*given, **named))
        return apps[-1]

    monkeypatch.setattr("mailq.worker.embedded.make_app", make)
    settings = replace(unroutable(sqlite_url), broker_url=redis_server.url, key_prefix="places:")
    with embedded(settings, concurrency=3) as runtime:
        places = apps[0].host.places
        assert places is not None
        places.leave(1)
        for number in range(3):
            assert runtime.ringer.ring(f"n{number}.test")
        assert eventually(lambda: len(begun) == 1)
        ringing = make_celery(settings)
        with ringing.connection_for_read() as connection:
            waiting = connection.default_channel.queue_declare(queue=DELIVER_QUEUE, durable=True)
        assert (1, 1, 2) == (len(begun), places.taken(), waiting.message_count)
        places.leave(3)
        assert eventually(lambda: len(begun) == 3)
        assert 3 == places.taken()
        gate.set()


def test_where_celery_fetches_in_advance_all_is_rung_for(sqlite_url: str) -> None:
    app = make_app(unroutable(sqlite_url))
    HostStep(SimpleNamespace(app=app, pool_cls=ThreadPool, steps=[], concurrency=7))
    assert app.host.places is None
    close(app)
