"""The queue of a Django project: on Django's own connections, or, where ``MAILQ`` says so, on its own.

On Django's connections everything the queue writes belongs to the
transaction that runs: ``atomic()`` takes it back, ``on_commit`` tells the
workers. Outside a transaction each call is one.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from django.db import Error, InterfaceError, OperationalError, connections, transaction
from sqlalchemy.exc import SQLAlchemyError

from mailq.api import Queue
from mailq.contrib.django import conf
from mailq.errors import DatabaseUnavailableError, MailqError, SchemaError

log = logging.getLogger(__name__)


class DjangoLender:
    """Lends the queue the connection that Django keeps for the calling thread.

    Args:
        alias: Django's name of the database.
        url: The same in SQLAlchemy's words.
    """

    def __init__(self, alias: str, url: str) -> None:
        self.alias = alias
        self.url = url

    def connection(self) -> Any:
        """Return the driver's connection, open."""
        owner = connections[self.alias]
        owner.validate_no_broken_transaction()
        # Django makes its checks when it makes a cursor: whether this thread, and this test, may use the connection.
        owner.cursor().close()
        return owner.connection

    def transaction(self) -> AbstractContextManager[object]:
        """Join the running transaction, or run one."""
        return transaction.atomic(using=self.alias, savepoint=False)

    def after_commit(self, call: Callable[[], object]) -> None:
        """Call *call* once the running transaction is committed; at once where none runs."""
        after_commit(self.alias, call)

    def explain(self, error: Exception, meaning: MailqError | None) -> MailqError | None:
        """Return what to tell an operator; None: nothing better than *meaning*."""
        if isinstance(error, SQLAlchemyError):
            # Django looks at the end of a request whether such a connection still works.
            connections[self.alias].errors_occurred = True
        if isinstance(meaning, SchemaError):
            return SchemaError(
                f"the tables of mailq in Django's database {self.alias!r} are missing or outdated; "
                "run manage.py migrate"
            )
        if isinstance(meaning, DatabaseUnavailableError):
            return _unavailable(self.alias, getattr(error, "orig", error))
        if isinstance(error, InterfaceError | OperationalError):
            return _unavailable(self.alias, error)
        return None


def get_queue() -> Queue:
    """Return the project's queue: every verb of :class:`mailq.api.Queue`, within Django's transactions.

    Raises:
        ImproperlyConfigured: ``MAILQ`` cannot be used.
    """
    return _queue_of(conf.configuration())


def after_commit(alias: str | None, call: Callable[[], object]) -> None:
    """Call *call* once what was written is committed, at once where it is; what *call* raises is logged.

    Args:
        alias: Django's database; None: the queue has its own, and commits by itself.
        call: Without arguments.
    """
    if alias is None:
        _call_safely(call)
        return
    try:
        transaction.on_commit(lambda: _call_safely(call), using=alias)
    except transaction.TransactionManagementError:
        # Autocommit is off, and only the application knows when it commits. The dispatcher finds new mail by itself.
        log.debug("Nobody is told of new mail: transactions of %r are managed by hand", alias)
    except Error as error:
        log.warning("Nobody is told of new mail, which the dispatcher finds by itself: %s", error)


def _call_safely(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:
        # The mail is committed: no receiver of a signal may make the application believe otherwise.
        log.exception("What was to be done after queueing mail failed; the mail is in the queue")


@lru_cache(maxsize=4)
def _queue_of(configuration: conf.Configuration) -> Queue:
    settings, sources = configuration.settings, configuration.loaded.sources
    if configuration.alias is None:
        return Queue(settings=settings, setting_sources=sources)
    lender = DjangoLender(configuration.alias, settings.database_url)
    return Queue(settings=settings, setting_sources=sources, lender=lender)


def _unavailable(alias: str, error: object) -> DatabaseUnavailableError:
    reason = " ".join(str(error).split())
    return DatabaseUnavailableError(f"cannot use Django's database {alias!r}: {reason}; check that it runs")
