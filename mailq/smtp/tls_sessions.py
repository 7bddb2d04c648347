"""TLS sessions to resume: the next connection to a server does without the dear part of the handshake.

A session belongs to one endpoint, server name, policy and context, and is never offered elsewhere. With it the
certificates of its first handshake are kept, since a resumed one sends none: they are judged again each time, so a
certificate that has expired, or an authority that has gone, counts at once.

Source: RFC 8446 §2.2, RFC 5077, postconf(5) smtp_tls_session_cache_timeout.
"""

import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from mailq.smtp.certificate import Certificate

MOST_SESSIONS: Final = 2000


@dataclass(frozen=True, slots=True)
class Resumable:
    """A session and the certificates it was made with, the server's own first; none at levels that look at none."""

    session: ssl.SSLSession
    chain: tuple[Certificate, ...]


class TlsSessions:
    """The sessions worth keeping; safe to use from any thread.

    Args:
        lifetime_seconds: A session is not offered after this; 0: none is kept.
        monotonic: Tells the time.
    """

    def __init__(self, lifetime_seconds: float, *, monotonic: Callable[[], float]) -> None:
        self._lifetime_seconds = lifetime_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[float, Resumable]] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """Whether sessions are kept at all."""
        return self._lifetime_seconds > 0

    def find(self, key: Hashable) -> Resumable | None:
        """Return the session kept under *key*; None where there is none that is young enough."""
        with self._lock:
            ends_at, found = self._kept.get(key, (0.0, None))
            if found is not None and self._monotonic() >= ends_at:
                del self._kept[key]
                return None
            return found

    def keep(self, key: Hashable, resumable: Resumable) -> None:
        """Keep a session in the place of any former one; the oldest goes when there are too many."""
        if not self.enabled:
            return
        with self._lock:
            self._kept[key] = (self._monotonic() + self._lifetime_seconds, resumable)
            self._kept.move_to_end(key)
            if len(self._kept) > MOST_SESSIONS:
                self._kept.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Forget the session kept under *key*."""
        with self._lock:
            self._kept.pop(key, None)
