"""A Redis server as a fixture; import it into a conftest."""

import os
from collections.abc import Iterator

import pytest

from mailq.testing.redisd import RedisServer, find_redis_server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A private, empty server."""
    if find_redis_server() is None:
        reason = "no redis-server program: install the package redis-server, or set MAILQ_TEST_REDIS"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(f"NOT TESTED ON REDIS: {reason}")
    with RedisServer() as server:
        yield server
