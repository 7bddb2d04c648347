"""The queue in a Flask application: ``MAILQ_*`` in its configuration, mail in its transactions, ``flask mailq …``.

    mail = Mailq()

    def create_app():
        app = Flask(__name__)
        app.config.from_prefixed_env()
        db.init_app(app)
        mail.init_app(app)
        return app

One object serves any number of applications. The keys of ``app.config`` that
begin with ``MAILQ_`` are settings; they are read by ``init_app`` and come
before the environment and the file that ``MAILQ_CONFIG`` names.

Which transaction mail is queued in follows one rule. With Flask-SQLAlchemy, if
the queue is in one of its databases, :meth:`Mailq.send` joins ``db.session``:
the mail is queued when the session is committed, and a rollback, such as that
of a view that raised, unsends it. Where no ``database_url`` is set, the queue
is in Flask-SQLAlchemy's own database. In every other case mail is queued at
once, in a transaction of its own; ``mail.queue.send()`` always does that.
"""

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formataddr
from functools import partial
from typing import Any, Final, Unpack, cast

import click
from flask import Flask, current_app, g
from sqlalchemy import URL, Engine, event, make_url
from sqlalchemy.orm import Session, scoped_session

from mailq.after_commit import Transaction
from mailq.api import Queue, Submission, SubmissionOptions
from mailq.errors import ConfigError
from mailq.settings_sources import LoadedSettings, default_database_url, load_with_sources

__all__ = ["Mailq"]

log = logging.getLogger(__name__)

PREFIX: Final = "MAILQ_"
_EXTENSION: Final = "mailq"
_UNCOMMITTED: Final = "_mailq_uncommitted"
_SENDER_KEY: Final = "MAIL_DEFAULT_SENDER"


@dataclass(slots=True)
class _State:
    """What one application has: its keys, and the queue once somebody asked for it."""

    app: Flask
    mapping: Mapping[str, object]
    config: str | None
    queue: Queue | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, config: str | None = None) -> LoadedSettings:
        """Return the settings in force, *config* being a file named on the command line; the app's context is pushed.

        Raises:
            SettingError: A name is unknown, or a value unusable.
        """
        loaded = load_with_sources(
            toml_path=config or self.config, mapping=self.mapping, prefix=PREFIX, default_database=str
        )
        if loaded.settings.database_url:
            return loaded
        database = _sqlalchemy(self.app)
        if database is None:
            return replace(loaded, settings=replace(loaded.settings, database_url=default_database_url()))
        url = _written(database.engine.url)
        sources = {**loaded.sources, "database_url": "Flask-SQLAlchemy's SQLALCHEMY_DATABASE_URI"}
        return replace(loaded, settings=replace(loaded.settings, database_url=url), sources=sources)


class Mailq:
    """The extension.

    Args:
        app: None: :meth:`init_app` is called later, once for each application.
        session: Mail joins this session's transactions, whatever the rule above says; it must be on the queue's
            database. None: by the rule.
    """

    def __init__(self, app: Flask | None = None, *, session: "scoped_session[Any] | None" = None) -> None:
        self._session = session
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the settings of *app*, and give it the command ``flask mailq``. Nothing is connected yet.

        Raises:
            SettingError: A key is unknown, or a value unusable; no secret is shown.
        """
        keys = {name: value for name, value in app.config.items() if name.startswith(PREFIX)}
        config = keys.pop("MAILQ_CONFIG", None)
        state = _State(app, keys, None if config is None else str(config))
        # Now, so that a mistake ends the start and not the first request; the database is not known yet.
        load_with_sources(toml_path=state.config, mapping=keys, prefix=PREFIX, default_database=str)
        app.extensions[_EXTENSION] = state
        app.cli.add_command(_command(app))
        app.teardown_appcontext(_warn_of_forgotten_commit)

    @property
    def queue(self) -> Queue:
        """The queue of the current application; what it is asked to send is queued at once.

        Raises:
            ConfigError: The application was not given to :meth:`init_app`, or its queue cannot be used.
        """
        state = _state()
        with state.lock:
            if state.queue is None:
                loaded = state.load()
                state.queue = Queue(settings=loaded.settings, setting_sources=loaded.sources)
            return state.queue

    def send(
        self, message: Any = None, *, connection: Transaction | None = None, **options: Unpack[SubmissionOptions]
    ) -> str:
        """Queue one message and return its queue id, as :meth:`mailq.Queue.send`.

        Args:
            message: None composes one; ``sender`` is then ``MAIL_DEFAULT_SENDER`` where it is not given.
            connection: None: by the rule of this module.
            options: See :class:`mailq.Submission`.

        Raises:
            RefusedError: The message, its envelope or an address cannot be sent; nothing was queued.
            IdempotencyConflictError: The key was used before with another message.
            DatabaseUnavailableError: The database cannot be reached; nothing was queued.
            SchemaError: The database needs ``flask mailq migrate``.
        """
        return self.send_many([Submission(message=message, **options)], connection=connection)[0]

    enqueue = send

    def send_many(self, submissions: Iterable[Submission], *, connection: Transaction | None = None) -> list[str]:
        """Queue many messages, all or none, and return their queue ids in order; otherwise as :meth:`send`."""
        queue = self.queue
        completed = [_with_sender(one) for one in submissions]
        if connection is not None:
            return queue.send_many(completed, connection=connection)
        joined = self._joined(queue)
        if joined is None:
            return queue.send_many(completed)
        session, engine = joined
        # A session with several databases has a connection to each; only the default one is meant by the session.
        target = session if engine is None else _connection(queue, session, engine)
        ids = queue.send_many(completed, connection=target)
        _watch_commit(session, ids)
        return ids

    def _joined(self, queue: Queue) -> tuple[Session, Engine | None] | None:
        """Return the session that mail joins, and the engine in it that is not its default; None: no session."""
        state = _state()
        wanted = make_url(queue.settings.database_url)
        if self._session is not None:
            session = cast("Session", self._session())
            with queue.store.explained():
                if not _same(session.get_bind().engine.url, wanted):
                    raise ConfigError("the session given to Mailq is on another database than the queue")
            return session, None
        database = _sqlalchemy(state.app)
        if database is None:
            return None
        for key, engine in sorted(database.engines.items(), key=lambda pair: str(pair[0] or "")):
            if _same(engine.url, wanted):
                return database.session(), None if key is None else engine
        return None


def _state() -> _State:
    state = current_app.extensions.get(_EXTENSION)
    if not isinstance(state, _State):
        raise ConfigError(f"the application {current_app.name!r} was not given to Mailq; call init_app(app)")
    return state


def _sqlalchemy(app: Flask) -> Any:
    """Return Flask-SQLAlchemy's extension; None where the application has none, or one without a default database."""
    found = app.extensions.get("sqlalchemy")
    return found if found is not None and None in found.engines else None


def _connection(queue: Queue, session: Session, engine: Engine) -> Any:
    with queue.store.explained():
        return session.connection(bind_arguments={"bind": engine})


def _with_sender(submission: Submission) -> Submission:
    """Return *submission* with Flask's default sender, where it is to be composed and names none."""
    default = current_app.config.get(_SENDER_KEY)
    if not default or submission.sender or submission.message is not None or submission.content is not None:
        return submission
    return replace(submission, sender=default if isinstance(default, str) else formataddr(tuple(default)))


def _written(url: URL) -> str:
    """Return *url* with its password, and with the driver left to the queue."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)


def _same(one: URL, other: URL) -> bool:
    """Whether both are the same database, used by the same role; the driver and its options do not matter."""
    return _identity(one) == _identity(other)


def _identity(url: URL) -> tuple[object, ...]:
    backend = {"postgres": "postgresql"}.get(url.get_backend_name(), url.get_backend_name())
    if backend == "sqlite":
        return backend, url.database
    return backend, url.host or "localhost", url.port or 5432, url.database or url.username, url.username


def _watch_commit(session: Session, ids: Iterable[str]) -> None:
    """Remember for the time of the application's context what is not committed yet."""
    known, waiting = g.get(_UNCOMMITTED, (None, set()))
    if known is not session:
        waiting = set()
        setattr(g, _UNCOMMITTED, (session, waiting))
        event.listen(session, "after_commit", partial(_committed, waiting))
        event.listen(session, "after_soft_rollback", partial(_undone, waiting))
    waiting.update(ids)


def _committed(waiting: set[str], session: Session) -> None:
    # A savepoint's release is announced in the same way.
    if not session.in_nested_transaction():
        waiting.clear()


def _undone(waiting: set[str], _session: Session, _transaction: object) -> None:
    # Whoever rolls back knows what he does.
    waiting.clear()


def _warn_of_forgotten_commit(error: BaseException | None) -> None:
    _, waiting = g.pop(_UNCOMMITTED, (None, ()))
    if waiting and error is None:
        log.warning(
            "%d messages were queued in a session that was not committed, so they are not sent, such as %s; "
            "call db.session.commit(), or mail.queue.send() for mail that does not depend on a transaction",
            len(waiting),
            min(waiting),
        )


def _command(app: Flask) -> click.Command:
    """Return ``flask mailq``: the whole program, with the settings of *app*."""

    @click.command(
        "mailq",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
        help="Queue, deliver and look after mail; 'flask mailq --help' lists the commands.",
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> None:
        from mailq.cli.program import main  # noqa: PLC0415 - a web process has no use for it
        from mailq.cli.session import Session as CommandLine  # noqa: PLC0415 - as above

        class FlaskSession(CommandLine):
            """One run of the program inside a Flask application."""

            def let_go(self) -> None:
                """Close Flask-SQLAlchemy's connections: two processes that share one read each other's answers."""
                database = app.extensions.get("sqlalchemy")
                for engine in () if database is None else database.engines.values():
                    engine.dispose()

        state: _State = app.extensions[_EXTENSION]
        with app.app_context():
            main.main(list(words), prog_name="flask mailq", obj=FlaskSession(state.load))

    return command
