"""What a worker process counts.

Few time series, whatever the mail: no label is an address, a nexthop, a host
or a server's words. A server's enhanced status is told by class and subject
only. Each process counts for itself; with several on a machine each needs an
address of its own. :mod:`mailq.worker.metric_names` has the names.

Source: RFC 3463 §3, smtp-delivery P-60 to P-68.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from mailq.queue.messages import RecipientResult
from mailq.queue.record import outcome_word
from mailq.queue.stories import first_word
from mailq.status import Delivered, DeliveryReport, EnhancedStatus, Reply, SessionFacts, Stage
from mailq.worker.durations import LONG_WAITS, Durations
from mailq.worker.metric_names import METRICS
from mailq.worker.tally import count_outcomes

_SUBJECTS: Final = range(8)
_PROTOCOLS: Final = frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})
_SOURCES: Final = frozenset({"tls_security_level", "tls_policy_maps", "DANE", "MTA-STS", "REQUIRETLS", "TLS-Required"})
_STAGES: Final = {
    Stage.GREETING: "greeting",
    Stage.EHLO: "hello",
    Stage.HELO: "hello",
    Stage.LHLO: "hello",
    Stage.STARTTLS: "starttls",
    Stage.TLS: "tls",
    Stage.AUTH: "auth",
    Stage.MAIL: "mail",
    Stage.RCPT: "rcpt",
    Stage.DATA: "data",
    Stage.BODY: "body",
    Stage.END_OF_DATA: "end_of_data",
}
"""Those that have a time series; the others are about taking leave."""
# By identity, because an enumeration's own hash is a call of Python code.
_NAME_OF: Final = {id(stage): name for stage, name in _STAGES.items()}
_PARTS: Final = ("dns", "connect")
"""Of :attr:`~mailq.status.SessionFacts.seconds`, what comes before there is a session."""


class Metrics:
    """The counters of one process; safe to use from many threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._outcomes = self._counter("mailq_outcomes_total")
        self._outcome_children: dict[tuple[str, str], Counter] = {}
        self._sessions = self._counter("mailq_sessions_total")
        uses = self._counter("mailq_session_uses_total")
        self._opened, self._reused = uses.labels("opened"), uses.labels("reused")
        self._policies = self._counter("mailq_tls_policies_total")
        self._logins = self._counter("mailq_logins_total")
        claims = self._counter("mailq_claims_total")
        self._fruitful, self._fruitless = claims.labels("mail"), claims.labels("none")
        self._claimed = self._counter("mailq_claimed_recipients_total")
        self._records = self._counter("mailq_records_total")
        self._rounds = self._counter("mailq_dispatcher_rounds_total")
        self._round_seconds = self._counter("mailq_dispatcher_round_seconds_total")
        self._work = self._counter("mailq_dispatcher_work_total")
        self._tasks = self._gauge("mailq_tasks")
        self._threads = self._gauge("mailq_threads")
        self._stages = self._durations("mailq_stage_seconds", label="stage")
        self._waits = self._durations("mailq_queue_to_sent_seconds", bounds=LONG_WAITS)

    def recorded(self, results: Iterable[RecipientResult]) -> None:
        """Count outcomes that stand in the queue now."""
        # The recipients of a transaction share what became of them.
        alike: dict[tuple[int, int], list[RecipientResult]] = {}
        for result in results:
            alike.setdefault((id(result.outcome), id(result.disposition)), []).append(result)
        self._records.inc()
        for same in alike.values():
            labels = _labels_of(same[0])
            child = self._outcome_children.get(labels)
            if child is None:
                child = self._outcome_children[labels] = self._outcomes.labels(*labels)
            child.inc(len(same))
            count_outcomes([labels[0]] * len(same))

    def attempted(self, report: DeliveryReport, *, waited_seconds: float | None = None) -> None:
        """Count the sessions of one run of the routine.

        Args:
            report: Of the run.
            waited_seconds: Age of the message in the queue; None: not known.
        """
        for facts in _sessions_of(report):
            self._stages.observe(_waits_of(facts))
            if facts.reused:
                self._reused.inc()
            else:
                self._opened.inc()
                self._count_new(facts)
        if waited_seconds is not None:
            sent = sum(isinstance(outcome, Delivered) for outcome in report.outcomes.values())
            if sent:
                self._waits.observe([("", max(0.0, waited_seconds))] * sent)

    def claimed(self, recipients: int) -> None:
        """Count a claim that leased so many recipients; 0 is none."""
        if recipients:
            self._fruitful.inc()
            self._claimed.inc(recipients)
        else:
            self._fruitless.inc()

    def dispatched(self, seconds: float, **work: int) -> None:
        """Count a round of the dispatcher, and what it did by name."""
        self._rounds.inc()
        self._round_seconds.inc(seconds)
        for what, count in work.items():
            self._work.labels(what).inc(count)

    def watch_tasks(self, running: Callable[[], int], *, threads: int) -> None:
        """Show how many tasks run whenever somebody looks, and how many could."""
        self._tasks.set_function(running)
        self._threads.set(threads)

    def _count_new(self, facts: SessionFacts) -> None:
        tls = facts.tls
        if tls is not None:
            level = tls.level.value
            protocol = (tls.protocol if tls.protocol in _PROTOCOLS else "other") if tls.encrypted else "none"
            self._sessions.labels(protocol, level, "yes" if tls.verified_by else "no").inc()
            self._policies.labels(tls.source if tls.source in _SOURCES else "other", level).inc()
        else:
            self._sessions.labels("none", "unknown", "no").inc()
        if facts.login:
            mechanism, _, result = facts.login.partition(" ")
            self._logins.labels(mechanism, result).inc()

    def _counter(self, name: str) -> Counter:
        metric = METRICS[name]
        return Counter(name, metric.text, metric.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        return Gauge(name, METRICS[name].text, registry=self.registry)

    def _durations(self, name: str, **options: object) -> Durations:
        made = Durations(name, METRICS[name].text, **options)  # type: ignore[arg-type]  # passed on as they are
        self.registry.register(made)
        return made


def _sessions_of(report: DeliveryReport) -> Iterator[SessionFacts]:
    """Yield the facts of each session once; those of one session are one object."""
    seen: set[int] = set()
    for outcome in report.outcomes.values():
        last = outcome if isinstance(outcome, Delivered) else outcome.failure
        for evidence in (*outcome.earlier, last):
            facts = evidence.facts
            if facts is not None and id(facts) not in seen:
                seen.add(id(facts))
                yield facts


def _labels_of(result: RecipientResult) -> tuple[str, str]:
    outcome = result.outcome
    if isinstance(outcome, Delivered):
        return outcome_word(result), _status_label(outcome.reply.code, first_word(outcome.reply))
    return outcome_word(result), _class_and_subject(outcome.failure.status)


@lru_cache(maxsize=1024)
def _status_label(code: int, word: str) -> str:
    return _class_and_subject(Reply(code, (f"{code:03} {word}",)).status)


def _class_and_subject(status: EnhancedStatus) -> str:
    return f"{status.severity.value}.{status.subject if status.subject in _SUBJECTS else 'x'}"


def _waits_of(facts: SessionFacts) -> list[tuple[str, float]]:
    """Return each stage and the time that the session waited in it."""
    added: dict[str, float] = {part: facts.seconds[part] for part in _PARTS if part in facts.seconds}
    for stage, seconds in facts.stages.items():
        name = _NAME_OF.get(id(stage))
        if name is not None:
            added[name] = added.get(name, 0.0) + seconds
    return list(added.items())
