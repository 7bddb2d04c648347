"""MTA-STS policies, remembered for all workers.

A row holds the policy that was fetched last, and whether a fetch failed since.
Every age is taken by the database's clock.

Source: RFC 8461 §3.2, §3.3.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, select, update

from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.tables import sts_policy
from mailq.queue.upsert import DIALECTS, insert_into
from mailq.tls.sts import StsPolicy
from mailq.tls.sts_cache import KnownPolicy

_DAY_SECONDS: Final = 86_400.0
_PUT_OFF_SECONDS: Final = 3600.0
_UNUSED_SECONDS: Final = 30 * _DAY_SECONDS
_PURGE_ROWS: Final = 1000

_by_domain = select(sts_policy, DatabaseNow().label("now")).where(sts_policy.c.domain == bindparam("wanted"))


def _remember(dialect: str) -> Any:
    statement = insert_into(sts_policy, dialect).values(
        fetched_at=DatabaseNow(),
        expires_at=seconds_from_now("life_seconds"),
        refresh_at=seconds_from_now("refresh_seconds"),
        checked_at=DatabaseNow(),
        used_at=DatabaseNow(),
        failed_at=None,
        failure="",
    )
    kept = {"domain", "used_at"}
    replaced = {
        column.name: statement.excluded[column.name] for column in sts_policy.columns if column.name not in kept
    }
    return statement.on_conflict_do_update(index_elements=[sts_policy.c.domain], set_=replaced)


def _note_failure(dialect: str) -> Any:
    statement = insert_into(sts_policy, dialect).values(
        mode=None,
        mx=[],
        max_age_seconds=0,
        expires_at=seconds_from_now("life_seconds"),
        checked_at=DatabaseNow(),
        used_at=DatabaseNow(),
        failed_at=DatabaseNow(),
    )
    replaced = {name: statement.excluded[name] for name in ("checked_at", "failed_at", "failure")}
    return statement.on_conflict_do_update(index_elements=[sts_policy.c.domain], set_=replaced)


_REMEMBER = {dialect: _remember(dialect) for dialect in DIALECTS}
_NOTE_FAILURE = {dialect: _note_failure(dialect) for dialect in DIALECTS}
_note_checked = (
    update(sts_policy)
    .where(sts_policy.c.domain == bindparam("wanted"))
    .values(checked_at=DatabaseNow(), used_at=DatabaseNow())
)
_due = (
    select(sts_policy.c.domain)
    .where(
        sts_policy.c.refresh_at.is_not(None),
        sts_policy.c.refresh_at <= DatabaseNow(),
        sts_policy.c.expires_at > DatabaseNow(),
        sts_policy.c.used_at > seconds_from_now("unused_seconds"),
    )
    .order_by(sts_policy.c.refresh_at)
    .limit(bindparam("wanted_count"))
    .with_for_update(skip_locked=True)
    .cte("due_policy")
)
_take = (
    update(sts_policy)
    .where(sts_policy.c.domain.in_(select(_due.c.domain)))
    .values(refresh_at=seconds_from_now("put_off_seconds"))
    .returning(sts_policy, DatabaseNow().label("now"))
)
_expired = select(sts_policy.c.domain).where(sts_policy.c.expires_at <= DatabaseNow()).limit(_PURGE_ROWS)
_purge = delete(sts_policy).where(sts_policy.c.domain.in_(_expired), sts_policy.c.expires_at <= DatabaseNow())


class StoredPolicies:
    """The policies in SQL: a :class:`mailq.tls.sts_cache.PolicyMemory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recall(self, domain: str) -> KnownPolicy | None:
        """Return what is known of *domain*; None where nothing is."""
        with self._database.read() as connection:
            row = connection.execute(_by_domain, {"wanted": domain}).one_or_none()
        return None if row is None else _known(row)

    def remember(self, policy: StsPolicy) -> None:
        """Replace what is known by a policy that was fetched just now; refreshed after a day or half its life."""
        row = {
            "domain": policy.domain,
            "version": policy.id,
            "mode": policy.mode,
            "mx": list(policy.mx),
            "max_age_seconds": policy.max_age_seconds,
            "life_seconds": float(policy.max_age_seconds),
            "refresh_seconds": min(_DAY_SECONDS, policy.max_age_seconds / 2),
        }
        with self._database.write() as connection:
            connection.execute(_REMEMBER[connection.dialect.name], row)

    def note_checked(self, domain: str) -> None:
        """Note that the announcement was looked at just now, for mail."""
        with self._database.write() as connection:
            connection.execute(_note_checked, {"wanted": domain})

    def note_failure(self, domain: str, version: str, failure: str) -> None:
        """Note that fetching *version* failed just now; a policy that is known stays."""
        row = {"domain": domain, "version": version, "failure": failure, "life_seconds": _DAY_SECONDS}
        with self._database.write() as connection:
            connection.execute(_NOTE_FAILURE[connection.dialect.name], row)

    def take_due(self, *, limit: int) -> Sequence[KnownPolicy]:
        """Return at most *limit* policies in use that are to be refreshed; they come again in an hour unless they are.

        One that no mail asked for in a month is left to expire.
        """
        parameters = {
            "wanted_count": limit,
            "unused_seconds": -_UNUSED_SECONDS,
            "put_off_seconds": _PUT_OFF_SECONDS,
        }
        with self._database.write() as connection:
            return [_known(row) for row in connection.execute(_take, parameters)]

    def purge(self) -> int:
        """Forget what has expired, some at a time; return how much."""
        with self._database.read() as connection:
            if connection.execute(_expired.limit(1)).first() is None:
                return 0
        with self._database.write() as connection:
            return connection.execute(_purge).rowcount


def _known(row: Row[Any]) -> KnownPolicy:
    policy = None
    if row.mode is not None:
        policy = StsPolicy(
            domain=row.domain, id=row.version, mode=row.mode, mx=tuple(row.mx), max_age_seconds=row.max_age_seconds
        )
    return KnownPolicy(
        domain=row.domain,
        policy=policy,
        left_seconds=_seconds(row.now, row.expires_at) if policy else 0.0,
        checked_seconds=_seconds(row.checked_at, row.now),
        failed_seconds=None if row.failed_at is None else _seconds(row.failed_at, row.now),
        failure=row.failure,
    )


def _seconds(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds()
