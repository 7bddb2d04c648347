"""The states of a recipient, as data.

Every write to a recipient's state is one of the :class:`Event` members, and
names the states it may start from; a row in another state is left alone.
Nothing leaves a final state.

Source: smtp-delivery Q-01, Q-53, Q-56
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType


class State(StrEnum):
    """What is stored."""

    QUEUED = "queued"
    LEASED = "leased"
    HELD = "held"
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
    HOLD = "hold"
    RELEASE_HELD = "release"
    RETRY = "retry"
    CANCEL = "cancel"


FINAL = frozenset({State.SENT, State.BOUNCED, State.EXPIRED, State.CANCELLED})

TRANSITIONS: Mapping[Event, Mapping[State, State]] = MappingProxyType(
    {
        Event.CLAIM: {State.QUEUED: State.LEASED},
        Event.DELIVER: {State.LEASED: State.SENT},
        Event.DEFER: {State.LEASED: State.QUEUED},
        Event.BOUNCE: {State.LEASED: State.BOUNCED},
        Event.EXPIRE: {State.LEASED: State.EXPIRED},
        Event.HAND_BACK: {State.LEASED: State.QUEUED},
        Event.HOLD: {State.QUEUED: State.HELD},
        Event.RELEASE_HELD: {State.HELD: State.QUEUED},
        Event.RETRY: {State.QUEUED: State.QUEUED},
        Event.CANCEL: {State.QUEUED: State.CANCELLED, State.HELD: State.CANCELLED},
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
