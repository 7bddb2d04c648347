"""What people do to the queue, for Python: orders, suspensions, explanations, and the record of who did what.

Each method answers with data, for the command line, an application and a page
to show; none prints. An order without any criterion is refused unless it says
that it means everything: a variable that happens to be None shall not cancel
all mail.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Unpack

from mailq.errors import OrderError
from mailq.limit_orders import LimitOrders
from mailq.limit_views import most_unproven_now, sessions_for
from mailq.limits.live_rules import LiveRules
from mailq.limits.port import Limits
from mailq.limits.rules import Traffic
from mailq.limits.shares import PROVEN_FOR
from mailq.queue.audit import AuditEntry, By
from mailq.queue.backoff import RetrySchedule
from mailq.queue.blockers import Sessions
from mailq.queue.explain import Explanation, explain
from mailq.queue.orders import Done, Preview, Verb
from mailq.queue.schedules import Schedules
from mailq.queue.situation import Situation
from mailq.queue.store import Store
from mailq.queue.suspend import Suspension
from mailq.selection import Criteria, selector
from mailq.settings import Settings

__all__ = ["By", "Operating", "Order"]

_CONNECTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What comes with an order besides the recipients it is about.

    Attributes:
        by: Who gives it, and why: the audit keeps both.
        counted: How many recipients a preview had found; None: nobody looked.
        everything: No criterion is given on purpose.
    """

    by: By = field(default_factory=By)
    counted: int | None = None
    everything: bool = False


NO_ORDER = Order()


def _silently(_problem: str) -> None:
    """Say nothing: what is not in force is part of the answer."""


class Operating(ABC):
    """The part of :class:`mailq.api.Queue` that looks after mail which is there already.

    Attributes:
        settings: In force.
        store: The queue.
    """

    settings: Settings
    store: Store
    _given_limits: Limits | None
    _setting_sources: Mapping[str, str] | None

    @abstractmethod
    def _ready(self) -> None:
        """Make sure that the database can be used."""

    def preview(self, verb: str, /, **criteria: Unpack[Criteria]) -> Preview:
        """Return what *verb* would touch now: how many, where they go, and a sample. Locks nothing.

        Args:
            verb: The name of a method that follows: hold, release, retry, cancel, bounce, expire or reroute.
            criteria: Which recipients; none given means all.

        Raises:
            RefusedError: There is no such verb, or a criterion cannot be meant.
        """
        if verb not in set(Verb):
            raise OrderError(f"an order is one of {', '.join(Verb)}, not {verb!r}")
        self._ready()
        return self.store.preview(Verb(verb), selector(**criteria))

    def hold(self, order: Order = NO_ORDER, /, **criteria: Unpack[Criteria]) -> Done:
        """Keep waiting recipients from being tried until they are released."""
        return self._carry_out(Verb.HOLD, order, criteria)

    def release(self, order: Order = NO_ORDER, /, **criteria: Unpack[Criteria]) -> Done:
        """Let held and quarantined recipients be tried again."""
        return self._carry_out(Verb.RELEASE, order, criteria)

    def retry(self, order: Order = NO_ORDER, /, **criteria: Unpack[Criteria]) -> Done:
        """Make waiting recipients due now."""
        return self._carry_out(Verb.RETRY, order, criteria)

    def cancel(self, order: Order = NO_ORDER, /, **criteria: Unpack[Criteria]) -> Done:
        """End waiting and held recipients, without a report to the sender."""
        return self._carry_out(Verb.CANCEL, order, criteria)

    def bounce(self, order: Order = NO_ORDER, /, **criteria: Unpack[Criteria]) -> Done:
        """Return waiting and held mail to its sender, who gets a failure report with the reason of *order*."""
        return self._carry_out(Verb.BOUNCE, order, criteria)

    def expire(self, order: Order = NO_ORDER, /, **criteria: Unpack[Criteria]) -> Done:
        """Give waiting and held mail up now as if its time were over; the sender gets a report of the last attempt."""
        return self._carry_out(Verb.EXPIRE, order, criteria)

    def reroute(self, nexthop: str, order: Order = NO_ORDER, /, **criteria: Unpack[Criteria]) -> Done:
        """Send waiting and held mail another way; what was tried before is due there now.

        Attempts and history stay. Nothing checks that *nexthop* takes the mail.

        Raises:
            OrderError: The nexthop does not parse; nothing was done.
        """
        return self._carry_out(Verb.REROUTE, order, criteria, nexthop=nexthop)

    def explain(self, queue_id: str) -> Sequence[Explanation]:
        """Say of each recipient of a message what keeps it from being tried now, and what happens next, and when.

        Raises:
            UnknownMessageError: There is none.
        """
        self._ready()
        found = self.store.situations(queue_id)
        return [explain(one, sessions=self._sessions(one), schedule=self._schedule(one)) for one in found]

    def suspend(self, pattern: str, *, until: datetime | None = None, by: By | None = None) -> Suspension:
        """Stop a destination for all workers: its mail is queued and rests, sessions end after the message they are at.

        Args:
            pattern: A nexthop as it is stored, or ``site:HOST``, ``site:*.DOMAIN`` or ``site:*``.
            until: Mail flows again by itself then; None: when it is resumed.
            by: Who says so, and why.

        Raises:
            OrderError: The pattern does not parse, or *until* is past or has no time zone.
        """
        self._ready()
        return self.store.suspend(pattern, until_at=until, by=by or By())

    def resume(self, pattern: str, *, by: By | None = None) -> bool:
        """Let mail flow again that *pattern* stopped, as it was given; False where it stopped nothing."""
        self._ready()
        return self.store.resume(pattern, by=by or By())

    def suspensions(self) -> Sequence[Suspension]:
        """Return what is stopped now."""
        self._ready()
        return self.store.suspensions()

    @cached_property
    def limits(self) -> LimitOrders:
        """The limits that mail has to pass: to set at run time, and to explain."""
        return LimitOrders(
            self.store.limit_rules,
            self._rules,
            ready=self._ready,
            counter=lambda: self._counter,
            hosts_of=self._hosts_of,
            most_unproven=self._most_unproven,
        )

    def audit(self, *, since: datetime | None = None, limit: int = 100) -> Sequence[AuditEntry]:
        """Return at most *limit* orders given at *since* or later, the latest first; None: from the beginning."""
        self._ready()
        return self.store.audit(since=since, limit=limit)

    def _carry_out(self, verb: Verb, order: Order, criteria: Criteria, *, nexthop: str | None = None) -> Done:
        chosen = selector(**criteria)
        if chosen.is_empty and not order.everything:
            raise OrderError(f"say which recipients to {verb}, or Order(everything=True)")
        self._ready()
        return self.store.order(verb, chosen, by=order.by, counted=order.counted, nexthop=nexthop)

    def _sessions(self, situation: Situation) -> Sessions:
        traffic = Traffic(
            nexthop=situation.nexthop,
            hosts=self._hosts_of(situation.nexthop),
            tenant=situation.labels.tenant,
            urgent=situation.priority <= self.settings.urgent_priority,
            most_unproven=self._most_unproven(situation.nexthop),
        )
        return sessions_for(self._rules.fresh(), traffic, self._counter)

    def _hosts_of(self, nexthop: str) -> tuple[str, ...]:
        """Return the names of the servers that *nexthop* last had."""
        return self.store.hosts_of([nexthop]).get(nexthop, ())

    def _most_unproven(self, nexthop: str) -> int:
        """Return how many sessions all nexthops may have that nothing good is known of; 0: *nexthop* is none."""
        if nexthop in self.store.proven([nexthop], within=PROVEN_FOR):
            return 0
        return most_unproven_now(self.settings, self._counter)

    def _schedule(self, situation: Situation) -> RetrySchedule:
        return self._schedules.schedule_for(sender=situation.sender, nexthop=situation.nexthop, labels=situation.labels)

    @cached_property
    def _schedules(self) -> Schedules:
        return Schedules.of(self.settings)

    @cached_property
    def _rules(self) -> LiveRules:
        # A file with a mistake is told of with each answer; it is no reason to give none.
        return LiveRules(
            self.settings, self.store.limit_rules, sources=self._setting_sources, needs_file=False, tell=_silently
        )

    @cached_property
    def _counter(self) -> Limits | None:
        """Whoever counts sessions; None where each worker process does so by itself."""
        # An application that explains nothing need not wait for these to be imported.
        from mailq.broker import is_memory, is_redis  # noqa: PLC0415 - as said above
        from mailq.limits.redis_limits import RedisLimits  # noqa: PLC0415 - as said above
        from mailq.limits.shelf_limits import ShelfLimits  # noqa: PLC0415 - as said above

        if self._given_limits is not None or is_memory(self.settings.broker_url):
            return self._given_limits
        if not is_redis(self.settings.broker_url):
            return ShelfLimits(self.store.limit_books)
        url, prefix = self.settings.broker_url, self.settings.key_prefix
        return RedisLimits.open(url, prefix=prefix, max_connections=_CONNECTIONS)

    def _close_counter(self) -> None:
        opened = self.__dict__.get("_counter")
        if opened is not None and opened is not self._given_limits:
            opened.close()
