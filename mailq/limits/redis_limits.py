"""Limits over all workers, in Redis.

Each operation is one script, hence one step, however many gates it is about;
what several threads ask at the same moment shares a round trip. Only
:meth:`RedisLimits.renew` and :meth:`RedisLimits.room` take a step for each
session or group. Time is Redis' own. What nobody needs any more expires. A wiped
Redis is filled again as holders renew; windows and buckets begin anew.

Redis Cluster is not supported: the keys of one operation belong to several slots of a cluster.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from importlib.resources import files
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mailq.errors import BrokerUnavailableError
from mailq.limits.buckets import NO_END, NOTHING, Amounts
from mailq.limits.gates import ZERO, Admitted, Feedback, Gate, GateView, Refused, WindowChange, check
from mailq.limits.operations import needed_of
from mailq.limits.port import ONE_MESSAGE, ONE_SESSION, Spent, new_token
from mailq.limits.redis_packing import Call, changes_of, each_of, packed, refused_of, view_of
from mailq.limits.together import Together
from mailq.limits.window import microseconds

_T = TypeVar("_T")

_SCRIPT: Final = files("mailq.limits").joinpath("limits.lua").read_text(encoding="utf-8")
_CONNECT_SECONDS: Final = 2.0
_SOCKET_SECONDS: Final = 5.0
# In one pipeline; a longer one would hold up everybody else's answers.
_STEPS: Final = 500


class RedisLimits:
    """The port :class:`mailq.limits.port.Limits` on a Redis server.

    Args:
        client: Its socket timeouts bound every call.
        prefix: Of every key.
        time: The time in microseconds, instead of the server's; then nothing expires, so it is for tests alone.
    """

    def __init__(self, client: "redis.Redis", *, prefix: str, time: Callable[[], int] | None = None) -> None:
        self._client = client
        self._prefix = prefix
        self._time = time
        self._script = client.register_script(_SCRIPT)
        self._together: Together[Call, Any] = Together(self._answers, most=_STEPS)

    @classmethod
    def open(cls, url: str, *, prefix: str, max_connections: int) -> "RedisLimits":
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

    def admit(
        self, gates: Sequence[Gate], *, owner: str, hold_for: timedelta, want: Amounts = ONE_SESSION
    ) -> Admitted | Refused:
        """Take a slot in every gate, and draw *want* from all their rates; or take nothing at all."""
        check(gates)
        admitted = Admitted(token=new_token(owner), gates=tuple(gates))
        if not gates:
            return admitted
        answer = self._run("admit", admitted, span=microseconds(hold_for), want=want)
        return admitted if answer == 1 else refused_of(answer, admitted.gates)

    def spend(
        self,
        admitted: Admitted,
        want: Amounts = ONE_MESSAGE,
        *,
        least: Amounts = NOTHING,
        patience: timedelta = ZERO,
        news: Sequence[Feedback] = (),
    ) -> Spent:
        """Note *news*, then draw for the next messages on an open session."""
        if not admitted.gates:
            return Spent(granted=want)
        needed = needed_of(want, least)
        answer = self._run("spend", admitted, span=microseconds(patience), want=want, needed=needed, news=news)
        messages, recipients, sessions, wait, refused, changes = answer
        found = refused_of(refused, admitted.gates) if refused else None
        return Spent(
            granted=Amounts(messages=messages, recipients=recipients, sessions=sessions),
            wait_seconds=((found.wait_seconds or 0.0) if found else float(wait) / 1e6),
            refused=found,
            changes=changes_of(changes, admitted.gates),
        )

    def note(self, admitted: Admitted, news: Sequence[Feedback]) -> tuple[WindowChange, ...]:
        """Move the windows by deliveries that were finished."""
        if not news or not any(gate.has_window for gate in admitted.gates):
            return ()
        return changes_of(self._run("note", admitted, news=news) or (), admitted.gates)

    def release(
        self, admitted: Admitted, *, news: Sequence[Feedback] = (), drained: bool = False
    ) -> tuple[WindowChange, ...]:
        """Note *news*, then give the slots back."""
        if not admitted.gates:
            return ()
        return changes_of(self._run("release", admitted, span=int(drained), news=news) or (), admitted.gates)

    def renew(self, held: Iterable[Admitted], *, hold_for: timedelta) -> frozenset[str]:
        """Hold the slots for another *hold_for*, and return the tokens of those that were gone."""
        every = [one for one in held if one.gates]
        calls = [self._call("renew", one, span=microseconds(hold_for)) for one in every]
        return frozenset(one.token for one, gone in zip(every, self._run_all(calls), strict=True) if gone)

    def look(self, gates: Sequence[Gate]) -> tuple[GateView, ...]:
        """Return how each gate is, for people."""
        if not gates:
            return ()
        views = self._run("look", _nobody(gates))
        return tuple(view_of(gate, one) for gate, one in zip(gates, views, strict=True))

    def room(self, wanted: Sequence[Sequence[Gate]]) -> tuple[int, ...]:
        """Return, for each group of gates, how many sessions may begin through it now."""
        answers = iter(self._run_all([self._call("room", _nobody(gates)) for gates in wanted if gates]))
        return tuple(next(answers) if gates else NO_END for gates in wanted)

    def revive(self, gates: Sequence[Gate]) -> None:
        """Forget that a destination is dead."""
        if gates:
            self._run("revive", _nobody(gates))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _run(self, operation: str, admitted: Admitted, **numbers: Any) -> Any:
        answer = self._together(self._call(operation, admitted, **numbers))
        return json.loads(answer) if isinstance(answer, bytes) else answer

    def _answers(self, calls: Sequence[Call]) -> Sequence[Any]:
        if len(calls) > 1:
            return _reach(partial(self._pipeline, calls))
        ((names, request),) = calls
        return [_reach(lambda: self._script(keys=names, args=(request,)))]

    def _run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run each call, and return their answers."""
        answers: list[Any] = []
        for first in range(0, len(calls), _STEPS):
            answers += _reach(partial(self._pipeline, calls[first : first + _STEPS]))
        return answers

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for names, request in calls:
                self._script(keys=names, args=(request,), client=pipeline)
            return pipeline.execute()

    def _call(
        self,
        operation: str,
        admitted: Admitted,
        *,
        span: int = 0,
        want: Amounts = NOTHING,
        needed: Amounts = NOTHING,
        news: Sequence[Feedback] = (),
    ) -> Call:
        time = -1 if self._time is None else self._time()
        numbers = (time, span, *each_of(want), *each_of(needed))
        return packed(operation, admitted, prefix=self._prefix, numbers=numbers, news=news)


def _nobody(gates: Sequence[Gate]) -> Admitted:
    return Admitted(token="", gates=tuple(gates))


def _redis_py_url(url: str) -> str:
    """Translate Celery's ``redis+socket://`` to redis-py's ``unix://``."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return url
    return urlunsplit(parts._replace(scheme="unix", query=parts.query.replace("virtual_host=", "db=")))


def _reach(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except redis.RedisError as error:
        raise BrokerUnavailableError(f"Redis does not count the sessions: {error}; is the server up?") from error
