"""The states of a recipient, as data.

Every write to a recipient's state is one of the :class:`Event` members, and
names the states it may start from; a row in another state is left alone.
Nothing leaves a final state. The database enforces the same table, see
:mod:`mailq.queue.guards`; docs/states.md shows it to people.

Source: smtp-delivery Q-01, Q-04, Q-53, Q-56
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType


class State(StrEnum):
    """What is stored."""

    QUEUED = "queued"
    LEASED = "leased"
    HELD = "held"
    QUARANTINED = "quarantined"
    SENT = "sent"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class ShownState(StrEnum):
    """What people see: the field's words."""

    QUEUED = "queued"
    DEFERRED = "deferred"
    ACTIVE = "active"
    HELD = "held"
    QUARANTINED = "quarantined"
    SENT = "sent"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Event(Enum):
    """What can happen to a recipient."""

    CLAIM = "claim"
    DELIVER = "deliver"
    DEFER = "defer"
    BOUNCE = "bounce"
    EXPIRE = "expire"
    HAND_BACK = "hand back"
    SET_ASIDE = "set aside"
    QUARANTINE = "quarantine"
    HOLD = "hold"
    RELEASE_HELD = "release"
    RETRY = "retry"
    CANCEL = "cancel"
    RETURN = "return"
    GIVE_UP = "give up"


FINAL = frozenset({State.SENT, State.BOUNCED, State.EXPIRED, State.CANCELLED})

# Nobody works on these, so people may end them.
_WAITING = (State.QUEUED, State.HELD, State.QUARANTINED)

TRANSITIONS: Mapping[Event, Mapping[State, State]] = MappingProxyType(
    {
        Event.CLAIM: {State.QUEUED: State.LEASED},
        Event.DELIVER: {State.LEASED: State.SENT},
        Event.DEFER: {State.LEASED: State.QUEUED},
        Event.BOUNCE: {State.LEASED: State.BOUNCED},
        Event.EXPIRE: {State.LEASED: State.EXPIRED},
        Event.HAND_BACK: {State.LEASED: State.QUEUED},
        Event.SET_ASIDE: {State.LEASED: State.HELD},
        Event.QUARANTINE: {State.LEASED: State.QUARANTINED},
        Event.HOLD: {State.QUEUED: State.HELD},
        Event.RELEASE_HELD: {State.HELD: State.QUEUED, State.QUARANTINED: State.QUEUED},
        Event.RETRY: {State.QUEUED: State.QUEUED, State.QUARANTINED: State.QUEUED},
        Event.CANCEL: dict.fromkeys(_WAITING, State.CANCELLED),
        Event.RETURN: dict.fromkeys(_WAITING, State.BOUNCED),
        Event.GIVE_UP: dict.fromkeys(_WAITING, State.EXPIRED),
    }
)


def sources(event: Event) -> tuple[State, ...]:
    """Return the states in which *event* may happen."""
    return tuple(TRANSITIONS[event])


def target(event: Event) -> State:
    """Return the state that *event* leads to, the same from every source."""
    (state,) = set(TRANSITIONS[event].values())
    return state


def shown(state: State, *, attempts: int) -> ShownState:
    """Return the word for people: a queued recipient that was tried before is *deferred*, a leased one *active*."""
    if state is State.QUEUED:
        return ShownState.DEFERRED if attempts > 0 else ShownState.QUEUED
    if state is State.LEASED:
        return ShownState.ACTIVE
    return ShownState(state.value)
