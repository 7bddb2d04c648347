"""Sessions kept open between messages, in this process.

A kept session is found by the destination that led to it, or by its endpoint.
Taking one removes it: nobody shares a session. A session stays a bounded time;
what is idle too long is closed without a word, as is everything at shutdown.

Source: smtp-delivery R-10 to R-17, postconf(5) smtp_connection_cache_time_limit.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Final

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
        # By the identity of the request that is next there, which the session keeps alive.
        self._reserved: dict[int, _Kept] = {}
        self._avoided: set[str] = set()
        self._closed = False
        # Nothing kept ends before this; whoever takes a session need not look at all the others each time.
        self._next_end = float("inf")

    def __len__(self) -> int:
        """Count the sessions kept."""
        with self._lock:
            return len(self._reserved) + sum(len(kept) for kept in self._by_endpoint.values())

    def keep(self, session: Session, destination_key: SessionKey | None) -> None:
        """Keep *session* under its own key; with a destination key it can be found by that too."""
        idle_until = self._clock.monotonic() + self._idle_seconds
        with self._lock:
            if not self._closed:
                self._next_end = min(self._next_end, idle_until)
                self._by_endpoint.setdefault(session.key, deque()).append(_Kept(session, idle_until))
                if destination_key is not None:
                    self._bind(destination_key, _Binding(session.key, idle_until))
                return
        session.close()

    def reserve(self, session: Session, request: DeliveryRequest) -> None:
        """Keep *session*, on which the commands of *request* are ahead, for nobody else."""
        idle_until = self._clock.monotonic() + self._idle_seconds
        with self._lock:
            if not self._closed:
                self._next_end = min(self._next_end, idle_until)
                self._reserved[id(request)] = _Kept(session, idle_until)
                return
        session.close()

    def take_reserved(self, request: DeliveryRequest) -> Session | None:
        """Take the session on which the commands of *request* are ahead; None where there is none."""
        self.close_idle()
        with self._lock:
            kept = self._reserved.pop(id(request), None)
        return None if kept is None else kept.session

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
        self.close_idle()
        with self._lock:
            return self._pop(endpoint_key, gate)

    def take_by_destination(self, destination_key: SessionKey, gate: Gatekeeper | None = None) -> Session | None:
        """Take the oldest session that this destination led to; None when none is kept.

        A binding outlives its session, and is then passed over. Source: smtp-delivery R-17.
        """
        self.close_idle()
        with self._lock:
            for binding in self._bindings.get(destination_key, ()):
                session = self._pop(binding.endpoint_key, gate)
                if session is not None:
                    return session
        return None

    def give_up(self, is_wanted: Callable[[Passage], bool]) -> bool:
        """Close the oldest session whose right to be open is wanted for another; False when none is kept.

        One that is reserved as well: its message finds another way.
        """
        with self._lock:
            found = self._oldest(is_wanted)
        if found is None:
            return False
        found.quit()
        return True

    def close_idle(self) -> None:
        """Close what was idle too long."""
        now = self._clock.monotonic()
        if now < self._next_end:
            return
        with self._lock:
            stale = self._remove_older(now)
        for session in stale:
            session.close()

    def close(self) -> None:
        """Close everything, and keep nothing from now on."""
        with self._lock:
            self._closed = True
            stale = self._remove_older(float("inf"))
        for session in stale:
            session.close()

    def _oldest(self, is_wanted: Callable[[Passage], bool]) -> Session | None:
        """Remove and return the oldest session with such a right."""
        every = chain(self._reserved.values(), *self._by_endpoint.values())
        wanted = [one for one in every if one.session.passage and is_wanted(one.session.passage)]
        if not wanted:
            return None
        oldest = min(wanted, key=lambda one: one.idle_until)
        for key, one in self._reserved.items():
            if one is oldest:
                del self._reserved[key]
                return oldest.session
        kept = self._by_endpoint[oldest.session.key]
        kept.remove(oldest)
        if not kept:
            del self._by_endpoint[oldest.session.key]
        return oldest.session

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
        # Entries are in the order of their ends, so only what is removed is looked at.
        stale = [kept.session for kept in self._reserved.values() if kept.idle_until <= now]
        self._reserved = {key: kept for key, kept in self._reserved.items() if kept.idle_until > now}
        for key, kept in list(self._by_endpoint.items()):
            while kept and kept[0].idle_until <= now:
                stale.append(kept.popleft().session)
            if not kept:
                del self._by_endpoint[key]
        for key, bindings in list(self._bindings.items()):
            while bindings and bindings[0].idle_until <= now:
                bindings.popleft()
            if not bindings:
                del self._bindings[key]
        ends = [kept[0].idle_until for kept in self._by_endpoint.values()]
        ends += [bindings[0].idle_until for bindings in self._bindings.values()]
        ends += [kept.idle_until for kept in self._reserved.values()]
        self._next_end = min(ends, default=float("inf"))
        return stale
