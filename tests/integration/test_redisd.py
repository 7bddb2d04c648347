"""The Redis server that tests start."""

import pytest

from mailq.testing.redisd import RedisServer

pytestmark = pytest.mark.redis


def test_it_comes_back_empty_on_the_same_port(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("a", "b")
    url, pid = redis_server.url, redis_server.pid
    redis_server.stop()
    redis_server.start()
    with redis_server.client() as client:
        assert 0 == client.dbsize()
    assert url == redis_server.url
    assert pid != redis_server.pid


def test_a_missing_program_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILQ_TEST_REDIS", "/nonexistent/redis-server")
    with pytest.raises(RuntimeError, match="install the package redis-server"):
        RedisServer().start()
