"""Which MTA-STS policy holds now: what is remembered, checked against the world from time to time.

Policies are remembered in SQL by all workers together, and in front of that
in this process. A domain's announcement is looked at again every few minutes;
its policy is fetched when the announcement names another version, and, by
:meth:`StsCache.refresh`, well before it expires.

Invariants:
    A policy that was fetched holds until it expires or is replaced by another that was fetched. Neither a policy host
    that is down nor a missing or garbled announcement ends it, or an attacker could.
    A failed fetch is not repeated for five minutes.
    However many ask for a domain at once, one of them looks and the others wait for it.

Source: RFC 8461 §3.3, §5, §5.1, §10.2.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mailq.errors import InfrastructureError, LookupFailedError, SchemaError
from mailq.routing.destination import ascii_hostname, is_address
from mailq.tls.sts import StsPolicy
from mailq.tls.sts_fetch import PolicyUnavailableError

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 300.0
"""An announcement is looked at again after this, and a failed fetch repeated. Source: RFC 8461 §3.3."""
_SHORT_SECONDS: Final = 60.0
_MEMORY_LIMIT: Final = 10_000
_WAIT_FACTOR: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPolicy:
    """What is remembered of a domain.

    Attributes:
        domain: An A-label in lower case.
        policy: As it was fetched, expired ones too; None where it never could be.
        left_seconds: Until it expires; 0 or less: it has.
        checked_seconds: Since the announcement was last looked at.
        failed_seconds: Since a fetch last failed; None: none did after the last that worked.
        failure: Type and text of that; empty: none.
    """

    domain: str
    policy: StsPolicy | None
    left_seconds: float
    checked_seconds: float
    failed_seconds: float | None = None
    failure: str = ""

    @property
    def valid(self) -> StsPolicy | None:
        """The policy, while it has not expired."""
        return self.policy if self.left_seconds > 0 else None


class PolicyMemory(Protocol):
    """Where policies are remembered by all workers together."""

    def recall(self, domain: str) -> KnownPolicy | None:
        """Return what is known; None where nothing is."""

    def remember(self, policy: StsPolicy) -> None:
        """Replace what is known by a policy that was fetched just now."""

    def note_checked(self, domain: str) -> None:
        """Note that the announcement was looked at just now, for mail."""

    def note_failure(self, domain: str, version: str, failure: str) -> None:
        """Note that fetching *version* failed just now; a policy that is known stays."""

    def take_due(self, *, limit: int) -> Sequence[KnownPolicy]:
        """Return policies in use that are to be refreshed, and put them off so that nobody else does it, too."""

    def purge(self) -> int:
        """Forget what has expired; return how much."""


class Source(Protocol):
    """Where policies come from."""

    def announced(self, domain: str) -> str | None:
        """Return the version that is announced, or raise LookupFailedError."""

    def fetch(self, domain: str, version: str) -> StsPolicy:
        """Return the policy, or raise PolicyUnavailableError."""


@dataclass(frozen=True, slots=True)
class _Entry:
    policy: StsPolicy | None
    failure: str
    until: float


def is_to_be_fetched(known: KnownPolicy | None, version: str | None) -> bool:
    """Whether the policy is to be fetched, the announcement naming *version*; None: it names none."""
    if version is None:
        return False
    if known is None:
        return True
    if known.failed_seconds is not None and known.failed_seconds < CHECK_SECONDS:
        return False
    return known.valid is None or known.valid.id != version


class StsCache:
    """Answers for all threads of this process.

    Args:
        source: Asked for what is not known.
        memory: Of all workers; while it is down, this process remembers for itself.
        timeout_seconds: Longest time that one look takes; others wait twice that for it at most.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        source: Source,
        memory: PolicyMemory,
        *,
        timeout_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._memory = memory
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._looking: dict[str, threading.Event] = {}

    def policy_for(self, domain: str) -> StsPolicy | None:
        """Return the policy to follow now, ``enforce`` or ``testing``; None where there is none. Never raises."""
        entry = self._entry(domain)
        policy = None if entry is None else entry.policy
        return None if policy is None or policy.mode == "none" else policy

    def failure_for(self, domain: str) -> str:
        """Return why *domain*'s policy could not be had when it was last wanted: type, colon, text; empty: it could."""
        name = _name(domain)
        with self._lock:
            entry = self._entries.get(name)
        return "" if entry is None else entry.failure

    def refresh(self, *, limit: int) -> int:
        """Fetch at most *limit* policies that are to be refreshed; forget what has expired. Return how many there were.

        Raises:
            DatabaseUnavailableError: The database is down.
        """
        self._memory.purge()
        due = self._memory.take_due(limit=limit)
        for known in due:
            version = self._announced(known.domain) or (known.policy.id if known.policy else "")
            # Without an announcement, too: what the host proves by its certificate counts.
            self._fetch(known, known.domain, version)
        return len(due)

    def _entry(self, domain: str) -> _Entry | None:
        name = _name(domain)
        if not name:
            return None
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None and self._monotonic() < entry.until:
                self._entries.move_to_end(name)
                return entry
            others = self._looking.get(name)
            if others is None:
                done = self._looking[name] = threading.Event()
        if others is not None:
            others.wait(self._timeout_seconds * _WAIT_FACTOR)
            with self._lock:
                return self._entries.get(name)
        try:
            return self._look(name)
        finally:
            with self._lock:
                del self._looking[name]
            done.set()

    def _look(self, domain: str) -> _Entry:
        known = self._recall(domain)
        if known is not None and known.valid and known.checked_seconds < CHECK_SECONDS:
            return self._keep(domain, known.valid, known.failure, known.left_seconds)
        try:
            version = self._source.announced(domain)
        except LookupFailedError as error:
            log.info("The MTA-STS announcement of %s cannot be looked up: %s", domain, error.text)
            return self._keep(domain, None if known is None else known.valid, "", 0.0)
        if is_to_be_fetched(known, version):
            return self._fetch(known, domain, version or "")
        if known is not None:
            self._tell(lambda: self._memory.note_checked(domain))
            return self._keep(domain, known.valid, known.failure, known.left_seconds if known.valid else CHECK_SECONDS)
        return self._keep(domain, None, "", CHECK_SECONDS)

    def _fetch(self, known: KnownPolicy | None, domain: str, version: str) -> _Entry:
        try:
            policy = self._source.fetch(domain, version)
        except PolicyUnavailableError as error:
            failure = f"{error.result_type}: {error}"
            still = None if known is None else known.valid
            log.warning(
                "The MTA-STS policy of %s cannot be had: %s; %s",
                domain,
                error,
                "the one before holds" if still else "mail goes without it",
            )
            self._tell(lambda: self._memory.note_failure(domain, version, failure))
            left = known.left_seconds if known is not None and still else CHECK_SECONDS
            return self._keep(domain, still, failure, left)
        self._tell(lambda: self._memory.remember(policy))
        return self._keep(domain, policy, "", policy.max_age_seconds)

    def _announced(self, domain: str) -> str | None:
        try:
            return self._source.announced(domain)
        except LookupFailedError:
            return None

    def _recall(self, domain: str) -> KnownPolicy | None:
        try:
            return self._memory.recall(domain)
        except (InfrastructureError, SchemaError) as error:
            log.warning("Remembered MTA-STS policies cannot be read: %s", error)
        with self._lock:
            entry = self._entries.get(domain)
        if entry is None or entry.policy is None:
            return None
        # For how long it holds nobody can say now; ending it would be what an attacker wants.
        return KnownPolicy(
            domain=domain, policy=entry.policy, left_seconds=_SHORT_SECONDS, checked_seconds=CHECK_SECONDS
        )

    def _tell(self, write: Callable[[], object]) -> None:
        try:
            write()
        except (InfrastructureError, SchemaError) as error:
            log.warning("An MTA-STS policy is remembered by this process only: %s", error)

    def _keep(self, domain: str, policy: StsPolicy | None, failure: str, left_seconds: float) -> _Entry:
        until = self._monotonic() + min(max(left_seconds, _SHORT_SECONDS), CHECK_SECONDS)
        entry = _Entry(policy, failure, until)
        with self._lock:
            self._entries[domain] = entry
            self._entries.move_to_end(domain)
            while len(self._entries) > _MEMORY_LIMIT:
                self._entries.popitem(last=False)
        return entry


def _name(domain: str) -> str:
    """Return the form in which domains are compared; empty for what cannot have a policy."""
    try:
        name = ascii_hostname(domain.rstrip(".")).lower()
    except ValueError:
        return ""
    return "" if is_address(name) else name
