"""Slots over all workers, in Redis.

One sorted set a key holds the tokens, scored by the instant they run out, so
whatever a dead worker held is forgotten by the next one who asks. The instant
is Redis' own: workers' clocks may differ. A wiped Redis is filled again as
holders renew.

Invariant: looking, counting and taking are one script, hence one step.

Source: celery.md §1.3, §6 pitfalls 15, 19 and 30.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mailq.errors import BrokerUnavailableError
from mailq.limits.slots import Holder, holder_of, new_token

_T = TypeVar("_T")

# KEYS[1]: the set. ARGV: token, milliseconds to hold, limit (0: none), "1" to take even when full.
_HOLD_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local limit = tonumber(ARGV[3])
if ARGV[4] ~= '1' and limit > 0 and redis.call('ZCARD', KEYS[1]) >= limit then
  return 0
end
local hold = tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now + hold, ARGV[1])
if redis.call('PTTL', KEYS[1]) < hold then
  redis.call('PEXPIRE', KEYS[1], hold)
end
return 1
"""
_COUNT_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
"""
# Tokens, each followed by the milliseconds it is still held.
_HOLDERS_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES')
for index = 2, #found, 2 do
  found[index] = found[index] - now
end
return found
"""
_CONNECT_SECONDS: Final = 2.0
_SOCKET_SECONDS: Final = 5.0


class RedisSlots:
    """The port :class:`mailq.limits.slots.Slots` on a Redis server.

    Args:
        client: Its socket timeouts bound every call.
        prefix: Of every key.
    """

    def __init__(self, client: "redis.Redis", *, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._hold_script = client.register_script(_HOLD_SCRIPT)
        self._count_script = client.register_script(_COUNT_SCRIPT)
        self._holders_script = client.register_script(_HOLDERS_SCRIPT)

    @classmethod
    def open(cls, url: str, *, prefix: str, max_connections: int) -> "RedisSlots":
        """Use the server at *url*, in Celery's spelling; connects on first use."""
        client = redis.Redis.from_url(
            _redis_py_url(url),
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_keepalive=True,
            health_check_interval=10,
            max_connections=max_connections,
            # One fresh connection is tried after a broken one; more would only make a dead server slower to notice.
            retry=Retry(NoBackoff(), 1),
        )
        return cls(client, prefix=prefix)

    def take(self, key: str, *, limit: int, hold_for: timedelta, owner: str = "") -> str | None:
        """Take one of *limit* slots, 0 being no limit; None when all are taken."""
        token = new_token(owner)
        milliseconds = _milliseconds(hold_for)
        taken = _reach(lambda: self._hold_script(keys=[self._name(key)], args=[token, milliseconds, limit, "0"]))
        return token if taken else None

    def renew(self, held: Iterable[tuple[str, str]], *, hold_for: timedelta) -> None:
        """Hold every (key, token) pair for another *hold_for*."""
        pairs = tuple(held)
        if not pairs:
            return
        milliseconds = _milliseconds(hold_for)

        def send() -> Any:
            with self._client.pipeline(transaction=False) as pipeline:
                for key, token in pairs:
                    self._hold_script(keys=[self._name(key)], args=[token, milliseconds, 0, "1"], client=pipeline)
                return pipeline.execute()

        _reach(send)

    def release(self, key: str, token: str) -> None:
        """Give a slot back; harmless when it is gone already."""
        _reach(lambda: self._client.zrem(self._name(key), token))

    def held(self, key: str) -> int:
        """Return how many slots of *key* are taken now, over all workers."""
        return cast("int", _reach(lambda: self._count_script(keys=[self._name(key)], args=[])))

    def holders(self, key: str) -> tuple[Holder, ...]:
        """Return who has a slot of *key* now, over all workers, by name."""
        found = _reach(lambda: self._holders_script(keys=[self._name(key)], args=[]))
        tokens, left = found[::2], found[1::2]
        pairs = sorted((token.decode(), int(milliseconds)) for token, milliseconds in zip(tokens, left, strict=True))
        return tuple(holder_of(token, timedelta(milliseconds=milliseconds)) for token, milliseconds in pairs)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _name(self, key: str) -> str:
        return f"{self._prefix}slots:{key}"


def _redis_py_url(url: str) -> str:
    """Translate Celery's ``redis+socket://`` to redis-py's ``unix://``."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return url
    return urlunsplit(parts._replace(scheme="unix", query=parts.query.replace("virtual_host=", "db=")))


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))


def _reach(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except redis.RedisError as error:
        raise BrokerUnavailableError(f"Redis does not count the sessions: {error}; is the server up?") from error
