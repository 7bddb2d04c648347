"""The channel to Redis that keeps its client, and whether it still goes where kombu's own goes."""

from collections.abc import Iterator

import pytest
from kombu import Connection
from kombu.transport.redis import Channel, Transport

from mailq.testing.redisd import RedisServer
from mailq.worker.savings import OneClientChannel, keep_clients

pytestmark = pytest.mark.redis


@pytest.fixture
def channel(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneClientChannel]:
    monkeypatch.setattr(Transport, "Channel", Channel)
    keep_clients()
    with Connection(redis_server.url) as connection:
        made = connection.channel()
        assert isinstance(made, OneClientChannel)
        yield made


def client_of(channel: OneClientChannel) -> object:
    with channel.conn_or_acquire() as client:
        assert client.ping()
        return client


def test_commands_share_a_client(channel: OneClientChannel) -> None:
    assert client_of(channel) is client_of(channel)


def test_a_client_that_is_given_is_used(channel: OneClientChannel) -> None:
    given = channel._create_client()
    with channel.conn_or_acquire(given) as client:
        assert client is given
    assert client_of(channel) is not given


def test_with_the_connections_the_client_goes_too(channel: OneClientChannel) -> None:
    before = client_of(channel)
    channel._disconnect_pools()
    assert client_of(channel) is not before
