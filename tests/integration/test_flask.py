"""The Flask extension: settings, transactions, several applications, the command line; on both databases."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from flask import Flask
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import scoped_session, sessionmaker

from mailq import ConfigError, DatabaseUnavailableError, Queue, SettingError, Submission
from mailq.contrib.flask import Mailq
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.testing.immediate import immediate
from mailq.testing.outbox import outbox
from mailq.testing.postgres import PostgresServer
from mailq.testing.redisd import RedisServer

_MAIL: dict[str, Any] = {"sender": "shop@example.org", "to": ["ann@x.org"], "subject": "Welcome", "text": "Hello"}
_OWN: dict[str, Any] = {"MAILQ_MYHOSTNAME": "shop.test", "MAILQ_BROKER_URL": "memory://"}


class Shop:
    """An application whose view signs somebody up and mails them, and may fail afterwards."""

    def __init__(self, url: str | None = None, **config: Any) -> None:
        self.db = SQLAlchemy()
        self.mail = Mailq()
        self.app = Flask("shop")
        self.app.config.update({"SQLALCHEMY_DATABASE_URI": url or "sqlite://"} | _OWN | config)
        self.db.init_app(self.app)
        self.mail.init_app(self.app)
        self.app.add_url_rule("/sign-up/<name>", view_func=self.sign_up, methods=["POST"])
        with self.app.app_context():
            self.db.session.execute(sqlalchemy.text("CREATE TABLE person (name TEXT)"))
            self.db.session.commit()

    def sign_up(self, name: str) -> str:
        self.db.session.execute(sqlalchemy.text("INSERT INTO person VALUES (:name)"), {"name": name})
        queue_id = self.mail.send(**_MAIL)
        if name == "mallory":
            raise PermissionError(name)
        if name != "forgetful":
            self.db.session.commit()
        return queue_id

    def people(self) -> list[str]:
        with self.app.app_context():
            return list(self.db.session.execute(sqlalchemy.text("SELECT name FROM person")).scalars())

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()


def queued(url: str) -> int:
    store = Store.open(url)
    try:
        return store.counts()[ShownState.QUEUED]
    finally:
        store.close()


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the workers were told."""
    told: list[str] = []
    monkeypatch.setattr(Queue, "_publish", lambda _queue, nexthops: told.extend(nexthops))
    return told


def test_a_view_that_raises_leaves_no_mail_and_one_that_commits_leaves_one(store_url: str, rings: list[str]) -> None:
    shop = Shop(store_url)

    assert 500 == shop.client.post("/sign-up/mallory").status_code
    assert ([], 0, []) == (shop.people(), queued(store_url), rings)
    assert 200 == shop.client.post("/sign-up/ann").status_code
    assert (["ann"], 1, ["x.org"]) == (shop.people(), queued(store_url), rings)


def test_a_savepoint_rolled_back_unsends_what_was_sent_in_it(store_url: str, rings: list[str]) -> None:
    shop = Shop(store_url)
    with shop.app.app_context():
        shop.mail.send(**_MAIL)
        with shop.db.session.begin_nested() as inner:
            shop.mail.send(**_MAIL)
            inner.rollback()
        assert [] == rings
        shop.db.session.commit()

    assert (1, ["x.org"]) == (queued(store_url), rings)


def test_the_queue_itself_sends_at_once(postgres_url: str) -> None:
    shop = Shop(postgres_url)
    with shop.app.app_context():
        shop.mail.queue.send(**_MAIL)
        shop.db.session.rollback()

    assert 1 == queued(postgres_url)


def test_a_forgotten_commit_is_told(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(sqlite_url)
    with caplog.at_level(logging.WARNING, "mailq.contrib.flask"):
        shop.client.post("/sign-up/ann")
        shop.client.post("/sign-up/mallory")
        queue_id = shop.client.post("/sign-up/forgetful").text

    (told,) = [record.getMessage() for record in caplog.records if record.name == "mailq.contrib.flask"]
    assert "1 messages were queued in a session that was not committed" in told
    assert queue_id in told
    assert 1 == queued(sqlite_url)


def test_another_database_than_the_applications_gets_the_mail_at_once(sqlite_url: str, tmp_path: Any) -> None:
    shop = Shop(f"sqlite:///{tmp_path}/shop.db", MAILQ_DATABASE_URL=sqlite_url)
    with shop.app.app_context():
        shop.mail.send(**_MAIL)
        shop.db.session.rollback()

    assert 1 == queued(sqlite_url)


def test_a_bind_of_flask_sqlalchemy_may_hold_the_queue(sqlite_url: str) -> None:
    shop = Shop("sqlite://", SQLALCHEMY_BINDS={"mail": sqlite_url}, MAILQ_DATABASE_URL=sqlite_url)
    with shop.app.app_context():
        shop.mail.send_many([Submission(**_MAIL)])
        shop.db.session.rollback()
        assert 0 == queued(sqlite_url)
        shop.mail.enqueue(**_MAIL)
        shop.db.session.commit()

    assert 1 == queued(sqlite_url)


def test_a_session_of_ones_own_is_joined(sqlite_url: str) -> None:
    app = Flask("plain")
    app.config.update(_OWN, MAILQ_DATABASE_URL=sqlite_url)
    session = scoped_session(sessionmaker(sqlalchemy.create_engine(sqlite_url)))
    mail = Mailq(app, session=session)
    with app.app_context():
        mail.send(**_MAIL)
        session.rollback()
        assert 0 == queued(sqlite_url)
        mail.send(**_MAIL)
        session.commit()
    session.remove()

    assert 1 == queued(sqlite_url)


def test_a_session_of_another_database_is_refused(sqlite_url: str) -> None:
    app = Flask("plain")
    app.config.update(_OWN, MAILQ_DATABASE_URL=sqlite_url)
    session = scoped_session(sessionmaker(sqlalchemy.create_engine("sqlite://")))
    mail = Mailq(app, session=session)

    with app.app_context(), pytest.raises(ConfigError, match="on another database than the queue"):
        mail.send(**_MAIL)


def test_one_extension_serves_several_applications(tmp_path: Any, sqlite_template: bytes) -> None:
    mail = Mailq()
    apps = [Flask(name) for name in ("one", "two")]
    for app in apps:
        (tmp_path / app.name).write_bytes(sqlite_template)
        app.config.update(_OWN, MAILQ_DATABASE_URL=f"sqlite:///{tmp_path / app.name}")
        mail.init_app(app)
    for app, count in zip(apps, (1, 2), strict=True):
        with app.app_context():
            mail.send_many([Submission(**_MAIL)] * count)

    assert [1, 2] == [queued(f"sqlite:///{tmp_path / app.name}") for app in apps]


def test_flasks_default_sender_is_the_author_of_a_composed_message() -> None:
    app = Flask("plain")
    app.config.update(_OWN, MAIL_DEFAULT_SENDER=("The shop", "shop@example.org"))
    mail = Mailq(app)
    with app.app_context(), outbox() as box:
        mail.send(to=["ann@x.org"], text="Hello")
        mail.send(to=["ann@x.org"], text="Hello", sender="bob@example.org")

        assert ["The shop <shop@example.org>", "bob@example.org"] == [str(one.email["From"]) for one in box]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"MAILQ_BROKERURL": "redis://"}, "unknown setting 'brokerurl'.*did you mean 'broker_url'"),
        ({"MAILQ_LEASE_TIME": "soon"}, "'lease_time' .*must be a duration"),
        ({"MAILQ_SASL_PASSWORD_MAPS": ["s3cret"]}, "destination=user:password"),
        ({"MAILQ_DATABASE_URL": "mysql://ann:s3cret@db/mail"}, r"begins with postgresql://"),
    ],
)
def test_a_mistake_in_the_configuration_ends_the_start_and_shows_no_secret(config: dict[str, Any], said: str) -> None:
    app = Flask("plain")
    app.config.update(config)

    with pytest.raises(SettingError, match=said) as caught:
        Mailq(app)
    assert "s3cret" not in str(caught.value)


def test_an_application_that_was_not_given_to_the_extension_is_told_so() -> None:
    with Flask("plain").app_context(), pytest.raises(ConfigError, match="'plain' was not given to Mailq"):
        Mailq().send(**_MAIL)


def test_the_command_line_has_the_applications_settings(sqlite_url: str) -> None:
    shop = Shop(sqlite_url)
    shop.client.post("/sign-up/ann")
    runner = shop.app.test_cli_runner()

    listed = runner.invoke(args=["mailq", "list"])
    assert (0, True) == (listed.exit_code, "ann@x.org" in listed.output)
    assert "schema is up to date" in runner.invoke(args=["mailq", "migrate"]).output
    assert "Flask-SQLAlchemy's" in runner.invoke(args=["mailq", "doctor"]).output
    assert "worker" in runner.invoke(args=["mailq", "--help"]).output
    wrong = runner.invoke(args=["mailq", "show", "nothing"])
    assert (65, True) == (wrong.exit_code, "no message has the queue id" in wrong.output)


def test_a_worker_shares_no_connection_of_the_application_with_processes_that_are_forked(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(sqlite_url)
    with shop.app.app_context():
        pool = shop.db.engine.pool
        assert "Connections in pool: 1" in pool.status()
        left: list[str] = []
        monkeypatch.setattr(
            "mailq.worker.main.run_worker", lambda _settings, **_: left.append(shop.db.engine.pool.status()) or 0
        )
    assert 0 == shop.app.test_cli_runner().invoke(args=["mailq", "worker"]).exit_code
    assert [True] == ["Connections in pool: 0" in one for one in left]


@pytest.mark.postgres
def test_a_database_that_is_down_is_an_error_that_says_so_and_nothing_is_half_done(
    postgres_server_alone: PostgresServer,
) -> None:
    url = postgres_server_alone.create_database("shop")
    store = Store.open(url)
    store.migrate()
    store.close()
    shop = Shop(url)
    assert 200 == shop.client.post("/sign-up/ann").status_code
    postgres_server_alone.stop()
    with shop.app.app_context():
        for send in (shop.mail.send, shop.mail.queue.send):
            with pytest.raises(DatabaseUnavailableError, match="check that it runs"):
                send(**_MAIL)
            shop.db.session.rollback()
    assert 500 == shop.client.post("/sign-up/bob").status_code
    postgres_server_alone.start()

    assert (["ann"], 1) == (shop.people(), queued(url))
    assert 200 == shop.client.post("/sign-up/bob").status_code
    assert (["ann", "bob"], 2) == (shop.people(), queued(url))


@pytest.fixture
def postgres_server_alone(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.mark.redis
def test_mail_is_accepted_while_the_broker_is_down_and_rung_for_when_it_is_up(
    store_url: str, redis_server: RedisServer
) -> None:
    shop = Shop(store_url, MAILQ_BROKER_URL=redis_server.url, MAILQ_PUBLISH_TIMEOUT="0.5s")
    redis_server.stop()

    assert 200 == shop.client.post("/sign-up/ann").status_code
    assert (["ann"], 1) == (shop.people(), queued(store_url))


def test_what_a_view_queues_is_delivered_by_the_routine(sqlite_url: str) -> None:
    shop = Shop(sqlite_url)
    with immediate() as sink:
        queue_id = shop.client.post("/sign-up/ann").text

    assert ["Welcome"] == [one["Subject"] for one in sink.messages]
    with shop.app.app_context():
        assert {"ann@x.org": ShownState.SENT} == shop.mail.queue.status(queue_id)


def test_the_outbox_follows_the_applications_transactions() -> None:
    shop = Shop("sqlite://")
    with outbox() as box:
        shop.client.post("/sign-up/mallory")
        shop.client.post("/sign-up/forgetful")
        assert 0 == len(box)
        shop.client.post("/sign-up/ann")
        assert ["Welcome"] == [one.subject for one in box.messages]


def in_threads(work: Callable[[], object], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_threads_share_the_queue_of_an_application(postgres_url: str) -> None:
    shop = Shop(postgres_url)
    in_threads(lambda: shop.client.post("/sign-up/ann"), 8)

    assert (8, 8) == (len(shop.people()), queued(postgres_url))
