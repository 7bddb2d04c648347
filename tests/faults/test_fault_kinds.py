"""Every kind of fault once, while mail flows: nothing is lost, and what comes twice the queue tells of."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailq.testing.postgres import PostgresServer, ServerProgramsMissingError
from mailq.testing.redisd import find_redis_server
from tests.faults.field import Size
from tests.faults.kinds import KINDS, Kind, clock_environment
from tests.faults.trial import databases, try_kind

pytestmark = [pytest.mark.redis, pytest.mark.postgres, pytest.mark.timeout(300)]

SIZE = Size(seconds=2, rate_per_second=20, workers=2)


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"NOT TESTED: {reason}")


@pytest.fixture(scope="module")
def syncing_postgres() -> Iterator[PostgresServer]:
    """A server that keeps what it has committed, for all trials of this process."""
    if find_redis_server() is None:
        _missing("no redis-server program: install the package redis-server")
    try:
        with databases() as server:
            yield server
    except ServerProgramsMissingError as error:
        _missing(str(error))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
def test_nothing_is_lost_and_no_copy_is_unexplained(
    kind: Kind, syncing_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Source: smtp-delivery Q-04, Q-45, T-36."""
    try:
        for seconds in kind.clocks:
            clock_environment(seconds)
    except FileNotFoundError as error:
        _missing(str(error))
    result = try_kind(kind, syncing_postgres, tmp_path, size=SIZE, seed=1)
    assert ((), (), ()) == (result.verdict.lost, result.verdict.unexplained, result.verdict.broken), result.logs
    assert result.verdict.mails > 10
    assert result.struck > 0
