"""What is remembered of MTA-STS policies, on SQLite and on PostgreSQL. Source: RFC 8461 §3.2, §3.3."""

from sqlalchemy import update

from mailq.queue.sqltypes import seconds_from_now
from mailq.queue.store import Store
from mailq.queue.tables import sts_policy
from mailq.tls.sts import StsPolicy

WEEK = 604_800
POLICY = StsPolicy("far.test", "1", "enforce", ("mx.far.test", "*.far.test"), WEEK)


def shift(store: Store, *, seconds: float, columns: tuple[str, ...]) -> None:
    """Set instants of every policy to so many seconds from now, by the database's clock."""
    with store.engine.begin() as connection:
        values = {name: seconds_from_now("seconds") for name in columns}
        connection.execute(update(sts_policy).values(values), {"seconds": seconds})


def test_a_policy_comes_back_as_it_was_fetched(store: Store) -> None:
    assert store.sts_policies.recall("far.test") is None
    store.sts_policies.remember(POLICY)
    known = store.sts_policies.recall("far.test")
    assert known is not None
    assert (POLICY, POLICY, None, "") == (known.policy, known.valid, known.failed_seconds, known.failure)
    assert WEEK - 60 < known.left_seconds <= WEEK
    assert 0 <= known.checked_seconds < 60


def test_a_policy_that_is_fetched_replaces_the_one_before(store: Store) -> None:
    newer = StsPolicy("far.test", "2", "testing", ("other.far.test",), 60)
    store.sts_policies.remember(POLICY)
    store.sts_policies.note_failure("far.test", "2", "sts-policy-fetch-error: down")
    store.sts_policies.remember(newer)
    known = store.sts_policies.recall("far.test")
    assert known is not None
    assert (newer, None, "") == (known.policy, known.failed_seconds, known.failure)


def test_a_failed_fetch_leaves_the_policy_and_says_why(store: Store) -> None:
    store.sts_policies.remember(POLICY)
    store.sts_policies.note_failure("far.test", "2", "sts-policy-fetch-error: down")
    known = store.sts_policies.recall("far.test")
    assert known is not None
    assert (POLICY, "sts-policy-fetch-error: down") == (known.valid, known.failure)
    assert known.failed_seconds is not None


def test_a_failed_fetch_is_remembered_where_there_is_no_policy(store: Store) -> None:
    store.sts_policies.note_failure("far.test", "1", "sts-webpki-invalid: expired")
    known = store.sts_policies.recall("far.test")
    assert known is not None
    assert (None, None, "sts-webpki-invalid: expired") == (known.policy, known.valid, known.failure)


def test_an_expired_policy_no_longer_holds_and_is_forgotten(store: Store) -> None:
    store.sts_policies.remember(POLICY)
    assert 0 == store.sts_policies.purge()
    shift(store, seconds=-1, columns=("expires_at",))
    known = store.sts_policies.recall("far.test")
    assert known is not None
    assert known.valid is None
    assert 1 == store.sts_policies.purge()
    assert store.sts_policies.recall("far.test") is None


def test_a_look_at_the_announcement_is_noted(store: Store) -> None:
    store.sts_policies.remember(POLICY)
    shift(store, seconds=-1000, columns=("checked_at",))
    store.sts_policies.note_checked("far.test")
    known = store.sts_policies.recall("far.test")
    assert known is not None
    assert known.checked_seconds < 60


def test_a_policy_in_use_is_taken_for_refreshing_once(store: Store) -> None:
    store.sts_policies.remember(POLICY)
    assert [] == store.sts_policies.take_due(limit=10)
    shift(store, seconds=-1, columns=("refresh_at",))
    assert [POLICY] == [known.policy for known in store.sts_policies.take_due(limit=10)]
    assert [] == store.sts_policies.take_due(limit=10)


def test_only_so_many_policies_are_taken_at_a_time(store: Store) -> None:
    for number in range(3):
        store.sts_policies.remember(StsPolicy(f"far{number}.test", "1", "enforce", ("mx.far.test",), WEEK))
    shift(store, seconds=-1, columns=("refresh_at",))
    assert [2, 1, 0] == [len(store.sts_policies.take_due(limit=2)) for _ in range(3)]


def test_a_policy_that_no_mail_asked_for_in_a_month_is_left_to_expire(store: Store) -> None:
    store.sts_policies.remember(POLICY)
    shift(store, seconds=-31 * 86_400, columns=("refresh_at", "used_at"))
    assert [] == store.sts_policies.take_due(limit=10)


def test_refreshing_does_not_count_as_use(store: Store) -> None:
    store.sts_policies.remember(POLICY)
    shift(store, seconds=-31 * 86_400, columns=("used_at",))
    store.sts_policies.remember(POLICY)
    shift(store, seconds=-1, columns=("refresh_at",))
    assert [] == store.sts_policies.take_due(limit=10)
