"""Every event that the log names, with its fields: docs/logging.md is written from this table.

An event is the attribute ``event`` of a log record, and the others are its attributes, too; text that is not an event
has none. Names and fields are kept as they are, since people build upon them.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

OUTCOME_FIELDS: Final = (
    "queue_id",
    "recipient",
    "nexthop",
    "lease",
    "session",
    "relay",
    "status",
    "reason",
    "seconds",
    "due_at",
    "earlier",
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        level: Of its records.
        text: What happened; ends with a full stop.
        fields: In the record, beside its name.
    """

    name: str
    level: str
    text: str
    fields: tuple[str, ...]


def _outcome(name: str, text: str) -> Event:
    return Event(name, "info", text, OUTCOME_FIELDS)


_ALL: Final = (
    _outcome("sent", "A server took the recipient's message."),
    _outcome("deferred", "It is tried again at due_at."),
    _outcome("bounced", "It was given up: a server, or we, refused it for good."),
    _outcome("expired", "It was given up: its time is over."),
    _outcome("uncertain", "Nobody knows whether a server took it."),
    _outcome("held", "It rests until people release it."),
    _outcome("quarantined", "Our own code, or a hook, stumbled over it again and again; it rests."),
    Event(
        "unrecorded",
        "error",
        "A server took it, and that could not be written down: it may be sent again.",
        ("queue_id", "recipient", "reason"),
    ),
    Event("lease_lost", "warning", "Others have the mail that was being delivered to nexthop.", ("nexthop",)),
    Event(
        "worker_died",
        "error",
        "One of a worker's processes ended by itself; another takes its place.",
        ("exit_code",),
    ),
    Event("leases_wait", "warning", "Leases cannot be renewed, since the database is down.", ("reason",)),
    Event("task_stalled", "error", "A task finished no message for stall_time; its mail is given away.", ("nexthop",)),
    Event("dispatcher_elected", "info", "This worker dispatches from now on.", ("owner",)),
    Event("dispatcher_left", "info", "This worker dispatches no longer.", ("owner",)),
    Event("dispatcher_waits", "error", "No round can be run, since the database is down.", ("reason",)),
    Event("dispatcher_works", "info", "Rounds are run again.", ("failures",)),
    Event("metrics_shown", "info", "The page of metrics is open.", ("port",)),
)

EVENTS: Final = MappingProxyType({one.name: one for one in _ALL})
"""By name, in the order of the page."""
