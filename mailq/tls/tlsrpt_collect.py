"""Counting sessions for TLS reports, in this process, until somebody writes the counts down.

Invariant: noting a session costs no more than a dictionary entry, and the number of entries is bounded.

Source: RFC 8460 §4.
"""

import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final

from mailq.security import TlsPolicy, TlsResult
from mailq.status import Endpoint
from mailq.tls.tlsrpt import SessionKind, kind_of, missing_policy

log = logging.getLogger(__name__)

_KINDS: Final = 20_000


class SessionCounts:
    """The sessions of this process that are not written down yet; safe to share between threads.

    Args:
        now: The present instant, aware.
        failure_for: Says why a domain's MTA-STS policy could not be had, empty where it could.
    """

    def __init__(self, *, now: Callable[[], datetime], failure_for: Callable[[str], str] = lambda _: "") -> None:
        self._now = now
        self._failure_for = failure_for
        self._lock = threading.Lock()
        self._counts: Counter[SessionKind] = Counter()
        self._lost = 0

    def note(self, policy: TlsPolicy, result: TlsResult, endpoint: Endpoint) -> None:
        """Count a session with *endpoint*, or that it was passed over."""
        now = self._now()
        kind = kind_of(
            policy,
            result,
            now=now,
            host=endpoint.host,
            address=endpoint.address,
            sending_ip="" if result.encrypted and not result.problem else _own_address(endpoint),
        )
        if kind is None:
            return
        missing = None
        if kind.policy_type == "no-policy-found":
            missing = missing_policy(kind.domain, self._failure_for(kind.domain), now=now)
        self.add({missing or kind: 1})

    def take(self) -> Mapping[SessionKind, int]:
        """Return the counts, which the caller now has to write down, and begin anew."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
            lost, self._lost = self._lost, 0
        if lost:
            log.warning("%d sessions are missing from TLS reports: too many different ones", lost)
        return taken

    def add(self, counts: Mapping[SessionKind, int]) -> None:
        """Add counts; also those that could not be written down."""
        with self._lock:
            for kind, number in counts.items():
                if kind in self._counts or len(self._counts) < _KINDS:
                    self._counts[kind] += number
                else:
                    self._lost += number


def _own_address(endpoint: Endpoint) -> str:
    """Return the address that the system would connect from; nothing is sent."""
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((endpoint.address, endpoint.port or 25))
        return str(probe.getsockname()[0])
    return ""
