"""Refused log-ins on record, shared by all workers: one row a server and account.

Source: smtp-delivery P-68.
"""

from datetime import timedelta

from sqlalchemy import bindparam, delete, select

from mailq.queue.engine import Database
from mailq.queue.tables import auth_failure
from mailq.queue.upsert import insert_into
from mailq.smtp.sasl_failures import AuthFailure
from mailq.status import Reply

_found = select(auth_failure).where(
    auth_failure.c.host == bindparam("host"), auth_failure.c.account == bindparam("account")
)


class StoredAuthFailures:
    """Refused log-ins in SQL; each method is one short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, host: str, user: str) -> AuthFailure | None:
        """Return the latest refusal of *user* at *host*, lower case; None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(_found, {"host": host, "account": user}).one_or_none()
        if row is None:
            return None
        return AuthFailure(
            host=row.host,
            user=row.account,
            salt=row.salt,
            digest=row.digest,
            reply=Reply(row.reply_code, tuple(row.reply_text.split("\n"))),
            noted_at=row.noted_at,
        )

    def note(self, failure: AuthFailure, *, keep: timedelta) -> None:
        """Put *failure* on record instead of an earlier one, and drop what was noted longer than *keep* before it."""
        key = {"host": failure.host, "account": failure.user}
        told = {
            "salt": failure.salt,
            "digest": failure.digest,
            "reply_code": failure.reply.code,
            "reply_text": "\n".join(failure.reply.lines),
            "noted_at": failure.noted_at,
        }
        insert = insert_into(auth_failure, self._database.dialect).values(**key, **told)
        with self._database.write() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=told))
            connection.execute(delete(auth_failure).where(auth_failure.c.noted_at < failure.noted_at - keep))

    def forget(self, host: str, user: str) -> None:
        """Drop what is on record; harmless where nothing is."""
        with self._database.read() as connection:
            known = connection.execute(_found, {"host": host, "account": user}).one_or_none()
        if known is None:
            # Nearly always: a log-in that works costs no write.
            return
        with self._database.write() as connection:
            connection.execute(delete(auth_failure).where(auth_failure.c.host == host, auth_failure.c.account == user))
