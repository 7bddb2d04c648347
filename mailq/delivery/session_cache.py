"""Sessions kept open between messages, in this process.

A kept session is found by the destination that led to it, or by its endpoint.
Taking one removes it: nobody shares a session. A session stays a bounded time;
what is idle too long is closed without a word, as is everything at shutdown.

Source: smtp-delivery R-10 to R-17, postconf(5) smtp_connection_cache_time_limit.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from mailq.delivery.ports import Clock, Gatekeeper, Passage
from mailq.delivery.session import Session, SessionKey
from mailq.envelope import DeliveryRequest


@dataclass(frozen=True, slots=True)
class _Kept:
    session: Session
    idle_until: float


@dataclass(frozen=True, slots=True)
class _Binding:
    endpoint_key: SessionKey
    idle_until: float


_T = TypeVar("_T")
_End = tuple[_Kept | _Binding, SessionKey | int]
"""An entry and where it is found: under a key, or under the identity of a request."""


def _claim_on(session: Session, gate: Gatekeeper | None) -> int:
    return 1 if gate is None or session.passage is None else gate.claim_on(session.passage)


# Servers that cannot be sent commands behind the end of a content are few.
_MOST_AVOIDED: Final = 1000


class SessionCache:
    """The idle sessions of one process; safe to use from many threads."""

    def __init__(self, clock: Clock, *, idle_time: timedelta = timedelta(seconds=2)) -> None:
        """Keep sessions for *idle_time* each."""
        self._clock = clock
        self._idle_seconds = idle_time.total_seconds()
        self._lock = threading.Lock()
        self._by_endpoint: dict[SessionKey, deque[_Kept]] = {}
        self._bindings: dict[SessionKey, deque[_Binding]] = {}
        # By the identity of the request that is next there, which the session keeps alive. Each message of a busy
        # session comes by here, so it is done without the lock, in single steps of the interpreter: where hundreds of
        # threads queue for a lock, each has it until it has had its turn in the interpreter, too.
        self._reserved: dict[int, _Kept] = {}
        self._avoided: set[str] = set()
        self._closed = False
        # All entries in the order of their ends, which is that of their coming, and those already taken among them: so
        # whoever takes a session looks at what has ended since, and never at all the others.
        self._ends: deque[_End] = deque()

    def __len__(self) -> int:
        """Count the sessions kept."""
        with self._lock:
            return len(self._reserved) + sum(len(kept) for kept in self._by_endpoint.values())

    def keep(self, session: Session, destination_key: SessionKey | None) -> None:
        """Keep *session* under its own key; with a destination key it can be found by that too."""
        idle_until = self._clock.monotonic() + self._idle_seconds
        with self._lock:
            if not self._closed:
                kept = _Kept(session, idle_until)
                self._by_endpoint.setdefault(session.key, deque()).append(kept)
                self._ends.append((kept, session.key))
                if destination_key is not None:
                    binding = _Binding(session.key, idle_until)
                    self._bind(destination_key, binding)
                    self._ends.append((binding, destination_key))
                return
        session.close()

    def reserve(self, session: Session, request: DeliveryRequest) -> None:
        """Keep *session*, on which the commands of *request* are ahead, for nobody else."""
        kept = self._reserved[id(request)] = _Kept(session, self._clock.monotonic() + self._idle_seconds)
        self._ends.append((kept, id(request)))
        # Looked at after that, as whoever closes everything looks here after it.
        if self._closed and self._forget(kept, id(request)):
            session.close()

    def take_reserved(self, request: DeliveryRequest) -> Session | None:
        """Take the session on which the commands of *request* are ahead; None where there is none."""
        kept = self._reserved.pop(id(request), None)
        if kept is None:
            return None
        if kept.idle_until <= self._clock.monotonic():
            kept.session.close()
            return None
        return kept.session

    def avoid_following(self, address: str) -> None:
        """Note that a server did not understand commands behind the end of a content."""
        with self._lock:
            if len(self._avoided) >= _MOST_AVOIDED:
                self._avoided.clear()
            self._avoided.add(address)

    def may_follow(self, address: str) -> bool:
        """Whether such commands may be sent to a server."""
        return address not in self._avoided

    def take_by_endpoint(self, endpoint_key: SessionKey, gate: Gatekeeper | None = None) -> Session | None:
        """Take the oldest session with this endpoint that *gate* lets us use; None when none is kept."""
        now = self._clock.monotonic()
        with self._lock:
            stale = self._remove_older(now)
            found = self._pop(endpoint_key, gate)
        _close(stale)
        return found

    def take_by_destination(self, destination_key: SessionKey, gate: Gatekeeper | None = None) -> Session | None:
        """Take the oldest session that this destination led to; None when none is kept.

        A binding outlives its session, and is then passed over. Source: smtp-delivery R-17.
        """
        now = self._clock.monotonic()
        with self._lock:
            stale = self._remove_older(now)
            bindings = self._bindings.get(destination_key, ())
            popped = (self._pop(binding.endpoint_key, gate) for binding in bindings)
            found = next((session for session in popped if session is not None), None)
        _close(stale)
        return found

    def give_up(self, is_wanted: Callable[[Passage], bool]) -> bool:
        """Close the oldest session whose right to be open is wanted for another; False when none is kept.

        One that is reserved as well: its message finds another way.
        """
        with self._lock:
            every: list[tuple[_Kept, SessionKey | int]] = [(one, key) for key, one in list(self._reserved.items())]
            every += [(one, key) for key, kept in self._by_endpoint.items() for one in kept]
        # Without the lock, since there may be hundreds.
        wanted = [(one, key) for one, key in every if one.session.passage and is_wanted(one.session.passage)]
        for one, key in sorted(wanted, key=lambda each: each[0].idle_until):
            with self._lock:
                is_here = self._forget(one, key)
            if is_here:
                one.session.quit()
                return True
        return False

    def close_idle(self) -> None:
        """Close what was idle too long."""
        now = self._clock.monotonic()
        with self._lock:
            stale = self._remove_older(now)
        _close(stale)

    def close(self) -> None:
        """Close everything, and keep nothing from now on."""
        with self._lock:
            self._closed = True
            stale = self._remove_older(float("inf"))
        _close(stale)

    def _bind(self, key: SessionKey, binding: _Binding) -> None:
        bindings = self._bindings.setdefault(key, deque())
        for old in bindings:
            if old.endpoint_key == binding.endpoint_key:
                bindings.remove(old)
                break
        bindings.append(binding)

    def _pop(self, key: SessionKey, gate: Gatekeeper | None) -> Session | None:
        kept = self._by_endpoint.get(key)
        if kept is None:
            return None
        # The first of equals, which is the oldest.
        best = kept[0] if len(kept) == 1 else max(kept, key=lambda one: _claim_on(one.session, gate))
        if not _claim_on(best.session, gate):
            return None
        kept.remove(best)
        if not kept:
            del self._by_endpoint[key]
        return best.session

    def _remove_older(self, now: float) -> list[Session]:
        stale = []
        while self._ends and self._ends[0][0].idle_until <= now:
            entry, key = self._ends.popleft()
            if isinstance(entry, _Kept) and self._forget(entry, key):
                stale.append(entry.session)
            elif isinstance(entry, _Binding) and not isinstance(key, int):
                _remove(self._bindings, key, entry)
        return stale

    def _forget(self, kept: _Kept, key: SessionKey | int) -> bool:
        """Forget a session that was kept; False where it was taken before."""
        if not isinstance(key, int):
            return _remove(self._by_endpoint, key, kept)
        return self._reserved.get(key) is kept and self._reserved.pop(key, None) is kept


def _remove(shelf: dict[SessionKey, deque[_T]], key: SessionKey, entry: _T) -> bool:
    """Remove *entry*, if it is there still."""
    entries = shelf.get(key)
    place = next((place for place, one in enumerate(entries or ()) if one is entry), None)
    if entries is None or place is None:
        return False
    del entries[place]
    if not entries:
        del shelf[key]
    return True


def _close(sessions: Iterable[Session]) -> None:
    for session in sessions:
        session.close()
