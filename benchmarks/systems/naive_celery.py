"""A Celery task a message with smtplib, on Redis: prefork with as many processes as others have sessions."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

from benchmarks.harness.system import Place, System, clean_environment, start_process
from mailq.testing.redisd import RedisServer

_PROCESSES = 20


class NaiveCelery(System):
    """No queue but the broker: what is lost there is lost, and outcomes are recorded nowhere."""

    name: ClassVar[str] = "celery"
    _redis: RedisServer
    _worker: int

    def start(self, place: Place, stack: ExitStack) -> None:
        """Start Redis and the worker."""
        self.place = place
        self._redis = stack.enter_context(RedisServer())
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.peers.naive_celery", "worker"]
        words = ["--concurrency", str(place.sessions or _PROCESSES), "--loglevel", "WARNING"]
        log = place.folder / "celery.log"
        environment = dict(self.environment())
        process = start_process(stack, [*command, *words], log, env=environment, cwd=place.folder)
        self._worker = process.pid

    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return the worker with its processes, and Redis."""
        return {"worker": [self._worker], "redis": [self._redis.pid]}

    def injection(self) -> Mapping[str, Any]:
        """Return nothing but its kind."""
        return {"kind": "celery"}

    def environment(self) -> Mapping[str, str]:
        """Return where the broker and the servers are."""
        hosts = {
            domain: (nexthop.partition("]")[0].lstrip("["), self.place.port)
            for domain, nexthop in self.place.nexthops().items()
        }
        return clean_environment(BENCH_BROKER=self._redis.url, BENCH_HOSTS=json.dumps(hosts))

    def log(self) -> str:
        """Return its log's end."""
        return (self.place.folder / "celery.log").read_text(errors="replace")[-3000:]
