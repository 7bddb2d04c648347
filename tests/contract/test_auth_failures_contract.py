"""What is promised about refused log-ins on record: by the fake, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mailq.delivery.ports import AuthFailures
from mailq.queue.store import Store
from mailq.smtp.credentials import Credentials
from mailq.smtp.sasl_failures import AuthFailure
from mailq.status import Reply
from tests.fakes.auth_failures import FakeAuthFailures

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAYS = timedelta(days=90)
REPLY = Reply(535, ("535-5.7.8 Username and password", "535 5.7.8 not accepted"))


@pytest.fixture(params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def failures(request: pytest.FixtureRequest) -> Iterator[AuthFailures]:
    if request.param == "fake":
        yield FakeAuthFailures()
        return
    store = Store.open(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))
    yield store.auth_failures
    store.close()


def refusal(
    password: str = "secret", *, user: str = "ann", host: str = "MX.test", noted_at: datetime = NOW
) -> AuthFailure:
    return AuthFailure.of(Credentials(user, password), REPLY, host=host, salt=b"0123456789abcdef", noted_at=noted_at)


def test_a_refusal_comes_back_as_it_was_noted(failures: AuthFailures) -> None:
    """P-68."""
    failures.note(refusal(), keep=DAYS)
    found = failures.find("mx.test", "ann")
    assert refusal() == found
    assert found.is_of(Credentials("ann", "secret"))
    assert not found.is_of(Credentials("ann", "better"))


def test_each_server_and_account_has_its_own(failures: AuthFailures) -> None:
    """P-68."""
    failures.note(refusal(), keep=DAYS)
    assert [None, None] == [failures.find("mx.test", "bob"), failures.find("other.test", "ann")]


def test_the_latest_refusal_replaces_the_one_before(failures: AuthFailures) -> None:
    """P-68."""
    failures.note(refusal(), keep=DAYS)
    later = refusal("other", noted_at=NOW + timedelta(hours=1))
    failures.note(later, keep=DAYS)
    assert later == failures.find("mx.test", "ann")


def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(failures: AuthFailures) -> None:
    """P-68."""
    failures.note(refusal(), keep=DAYS)
    failures.note(refusal(user="bob"), keep=DAYS)
    for _ in range(2):
        failures.forget("mx.test", "ann")
    assert failures.find("mx.test", "ann") is None
    assert failures.find("mx.test", "bob") is not None


def test_what_is_too_old_goes_when_something_new_comes(failures: AuthFailures) -> None:
    """P-68."""
    failures.note(refusal(), keep=DAYS)
    failures.note(refusal(user="bob", noted_at=NOW + DAYS), keep=DAYS)
    assert failures.find("mx.test", "ann") is not None
    failures.note(refusal(user="bob", noted_at=NOW + DAYS + timedelta(seconds=1)), keep=DAYS)
    assert failures.find("mx.test", "ann") is None


def test_the_password_cannot_be_read_from_the_record() -> None:
    shown = f"{refusal('tanstaaf')!r} {refusal('tanstaaf').digest!r}"
    assert "tanstaaf" not in shown
    other_salt = AuthFailure.of(Credentials("ann", "secret"), REPLY, host="h", salt=b"another salt 123", noted_at=NOW)
    assert refusal().digest != other_salt.digest
