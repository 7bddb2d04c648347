"""The workloads: what is sent, to how many destinations, and how their servers behave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.harness.mail import Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every system is put through.

    Attributes:
        name: As on the command line.
        title: One line for tables.
        mail: How its messages look.
        messages: Handed over in the timed part.
        warm_up: Handed over before, not timed.
        injectors: Processes that hand over at once.
        rules: How the receiver behaves, if not at once and well; see :mod:`benchmarks.harness.slow_sink`.
        sessions: Sessions a single worker process may hold; 0: the system's default.
        processes: Workers of a single process each, where a system has them; 0: one worker at its defaults.
        backlog: Deferred recipients already there, to other destinations.
        systems: Compared by default.
        mailq: Settings of mailq for this workload.
        seconds: Longest time for a run.
    """

    name: str
    title: str
    mail: Mail = field(default_factory=Mail)
    messages: int = 4000
    warm_up: int = 200
    injectors: int = 4
    rules: Mapping[str, float] = field(default_factory=dict)
    sessions: int = 0
    processes: int = 0
    backlog: int = 0
    systems: Sequence[str] = ("mailq", "postfix")
    mailq: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 300.0

    @property
    def failing(self) -> int:
        """How many destinations, the first ones, never take mail during a run."""
        return int(self.rules.get("failing", 0))

    def deliverable(self, numbers: range) -> list[int]:
        """Return those messages whose destination works; messages to many destinations need all of them to."""
        return [one for one in numbers if one % self.mail.domains >= self.failing]

    @property
    def transactions(self) -> int:
        """How many transactions a message takes: one a destination that it has recipients at."""
        return min(self.mail.domains, self.mail.recipients)


_PEERS = ("exim", "celery", "post-office")
_SESSIONS = tuple(f"postfix{kind}@{sessions}" for kind in ("", "-tuned") for sessions in (2, 10))
_EVERYBODY = ("mailq", "mailq-bulk", "postfix", "postfix-tuned", *_SESSIONS, *_PEERS)

_W3 = Workload(
    name="W3",
    title="1,000 destinations whose servers take 1 s over each of connect and final dot",
    mail=Mail(domains=1000),
    messages=10_000,
    # One to each, as any other day's mail would have been: what is new to mailq may not have all sessions.
    warm_up=1000,
    rules={"connect_seconds": 1.0, "dot_seconds": 1.0},
    sessions=1000,
    processes=1,
    systems=("mailq", "mailq-bulk", "postfix"),
)
WORKLOADS = {
    one.name: one
    for one in (
        Workload(name="W1", title="one destination", systems=_EVERYBODY),
        Workload(name="W2", title="50 destinations", mail=Mail(domains=50), systems=_EVERYBODY),
        _W3,
        replace(
            _W3,
            name="W3long",
            title="the same with 60 messages to each destination, so that the beginning counts for less",
            messages=60_000,
            systems=("mailq-bulk",),
        ),
        Workload(
            name="W4",
            title="messages of 1 MB",
            mail=Mail(size_bytes=1_000_000),
            messages=200,
            warm_up=10,
            systems=("mailq", "postfix", "postfix-tuned", "exim"),
        ),
        Workload(
            name="W5",
            title="1,000 recipients a message over 50 domains",
            mail=Mail(domains=50, recipients=1000),
            messages=20,
            warm_up=2,
            systems=("mailq", "postfix", "postfix-tuned", "exim"),
        ),
        Workload(
            name="W3b1",
            title="one destination, 50 ms away",
            rules={"rtt_seconds": 0.05},
            systems=("mailq", "mailq-tuned", "postfix", "postfix-tuned"),
        ),
        Workload(
            name="W3b50",
            title="50 destinations, 50 ms away",
            mail=Mail(domains=50),
            rules={"rtt_seconds": 0.05},
            systems=("mailq", "postfix", "postfix-tuned"),
        ),
        Workload(
            name="W6",
            title="15 of 50 destinations fail in the ways of providers; messages to the others are counted",
            mail=Mail(domains=50),
            rules={"failing": 15},
            systems=("mailq", "postfix", "postfix-tuned"),
        ),
        Workload(
            name="W9",
            title="1, 2 and 4 worker processes, 50 destinations",
            mail=Mail(domains=50),
            processes=1,
            systems=("mailq", "mailqx2", "mailqx4"),
        ),
        Workload(
            name="W7",
            title="new mail to 50 destinations beside a backlog of a thousand, a hundred thousand, a million deferred",
            mail=Mail(domains=50),
            systems=("mailq+1000", "mailq+100000", "mailq+1000000"),
        ),
        Workload(name="W8", title="a Django view that sends a mail, beside views that write rows", systems=("mailq",)),
    )
}
