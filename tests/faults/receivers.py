"""The other side of the world: three mail servers that count, and the zone that leads to them."""

import threading
import time
from collections import Counter
from contextlib import ExitStack
from random import Random
from types import TracebackType
from typing import Any, Self

from mailq.testing.smtpd import Script, ScriptedSmtpServer

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
DOMAINS = tuple(f"d{i}.test" for i in range(12))
_ATTEMPTS = 20


def zone() -> dict[str, Any]:
    """Return the records of all domains; every fourth has a second server behind its first."""
    records: dict[str, Any] = {f"mx{i}.test": {"A": [address]} for i, address in enumerate(ADDRESSES)}
    for i, domain in enumerate(DOMAINS):
        second = [f"20 mx{(i + 1) % 3}.test"] if i % 4 == 3 else []
        records[domain] = {"MX": [f"10 mx{i % 3}.test", *second]}
    records["client.test"] = {"MX": ["10 mx0.test"]}
    return records


class Receivers:
    """Servers that note each recipient of each message they take before they say so.

    Attributes:
        silent_share: Of the messages taken; their final dot is not answered, or the connection breaks instead.
        greylisted_share: Of the recipients; each is put off once.

    Args:
        chance: Decides about both.
        greylisted_share: As above.
    """

    def __init__(self, chance: Random, *, greylisted_share: float = 0.1) -> None:
        self.silent_share = 0.0
        self.greylisted_share = greylisted_share
        self._chance = chance
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._first_at: dict[str, float] = {}
        self._put_off: set[str] = set()
        self._silences = 0
        self._stack = ExitStack()
        self.port = 0

    def __enter__(self) -> Self:
        script = Script(rcpt=self._rcpt, dot=self._dot, delay_seconds=0.005)
        for attempt in range(_ATTEMPTS):
            # All must have one port, and the system knows only which is free on one address.
            stack = ExitStack()
            try:
                port = 0
                for address in ADDRESSES:
                    port = stack.enter_context(ScriptedSmtpServer(script, address=address, port=port)).port
            except OSError:
                stack.close()
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                self.port, self._stack = port, stack
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def count(self) -> int:
        """How many different recipients' mail was taken."""
        with self._lock:
            return len(self._taken)

    @property
    def silences(self) -> int:
        """How many messages were taken without an answer."""
        with self._lock:
            return self._silences

    def taken(self) -> Counter[str]:
        """Return how often each recipient's mail was taken."""
        with self._lock:
            return Counter(self._taken)

    def first_taken_at(self) -> dict[str, float]:
        """Return when each recipient's mail was first taken, by the monotonic clock."""
        with self._lock:
            return dict(self._first_at)

    def _rcpt(self, address: str) -> str:
        with self._lock:
            if address not in self._put_off and address not in self._taken:
                self._put_off.add(address)
                if self._chance.random() < self.greylisted_share:
                    return "451 4.7.1 Greylisted, please try again later"
        return "250 2.1.5 Ok"

    def _dot(self, addresses: str) -> str:
        with self._lock:
            now = time.monotonic()
            for address in addresses.split(","):
                if address.rpartition("@")[2] not in DOMAINS:
                    # A notice to the postmaster.
                    continue
                self._taken[address] += 1
                self._first_at.setdefault(address, now)
            if self._chance.random() >= self.silent_share:
                return "250 2.0.0 Ok: taken"
            self._silences += 1
            return self._chance.choice(("!stall", "!drop", "!rst"))
