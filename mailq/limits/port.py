"""The port through which all workers share what they must: sessions, windows, rates.

A session is admitted through all of its gates in one step, or through none.
What it holds there is a lease: it runs out by itself, so whoever dies gives
everything back without anybody's help. Time is that of whoever counts;
workers' clocks may differ.

Implementations: :mod:`mailq.limits.local_limits`, :mod:`mailq.limits.redis_limits`,
:mod:`mailq.limits.shelf_limits`, and :mod:`mailq.limits.fallback` for two of them.

Source: smtp-delivery Q-20 to Q-40
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from mailq.limits.buckets import NOTHING, Amounts
from mailq.limits.gates import ZERO, Admitted, Feedback, Gate, GateView, Refused, WindowChange

ONE_SESSION: Final = Amounts(sessions=1)
ONE_MESSAGE: Final = Amounts(messages=1, recipients=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What may be sent next on an open session.

    Attributes:
        granted: What was wanted, or less of it, or nothing.
        wait_seconds: With something granted: send it after this, it is promised. With nothing: ask again after this.
        refused: Why nothing was granted; None where something was. Where the reason is no rate, the session should
            end: it is one too many, or its destination is dead or paused.
        changes: What the news did to the windows, see :meth:`Limits.note`.
    """

    granted: Amounts
    wait_seconds: float = 0.0
    refused: Refused | None = None
    changes: tuple[WindowChange, ...] = ()


class Limits(Protocol):
    """Lets sessions begin, and says what they may send; safe to use from many threads.

    Every method may raise :class:`mailq.errors.BrokerUnavailableError` or another
    :class:`mailq.errors.InfrastructureError`: whoever counts cannot be reached.
    """

    def admit(
        self, gates: Sequence[Gate], *, owner: str, hold_for: timedelta, want: Amounts = ONE_SESSION
    ) -> Admitted | Refused:
        """Take a slot in every gate, and draw *want* from all their rates; or take nothing at all.

        Args:
            gates: No two with the same key; none at all admits at once.
            owner: Who asks, for people to read; without ``/``.
            hold_for: The slots are free again after this, unless renewed.
            want: Drawn as a whole; more than a burst is drawn from a full bucket and paid for afterwards.
        """

    def spend(
        self,
        admitted: Admitted,
        want: Amounts = ONE_MESSAGE,
        *,
        least: Amounts = NOTHING,
        patience: timedelta = ZERO,
        news: Sequence[Feedback] = (),
    ) -> Spent:
        """Do as :meth:`note`, then draw for the next messages on an open session: all of *want*, or less.

        The session must still be in its place: nothing is granted where a gate is dead or suspended, where more
        sessions are open than may be (those that ask first end first), or where the slot ran out.

        Args:
            admitted: The session.
            want: At most this; what is 0 here is granted 0.
            least: Less than this is of no use; of everything wanted, 1 is the least.
            patience: *least* may be promised for later, up to this: whoever waits then need not compete.
            news: Of deliveries that were not noted before.
        """

    def note(self, admitted: Admitted, news: Sequence[Feedback]) -> tuple[WindowChange, ...]:
        """Move the windows by deliveries that were finished, in their order, while the session goes on.

        Returns:
            One for each gate and each piece of news that changed its window's size, state or failures.
        """

    def release(
        self, admitted: Admitted, *, news: Sequence[Feedback] = (), drained: bool = False
    ) -> tuple[WindowChange, ...]:
        """Do as :meth:`note`, then give the slots back; harmless when they are gone already.

        News of a session whose slot ran out are not heard: it may have been told of twice.

        Args:
            admitted: The session.
            news: Of deliveries that were not noted before.
            drained: No mail waits for this destination: with its last session its window is forgotten.
                Source: smtp-delivery Q-26.
        """

    def renew(self, held: Iterable[Admitted], *, hold_for: timedelta) -> frozenset[str]:
        """Hold the slots for another *hold_for*, and return the tokens of those that were gone from any gate.

        What was gone is counted again, since the session goes on: a gate may then have more sessions than it
        should, until :meth:`spend` has told enough of them.
        """

    def look(self, gates: Sequence[Gate]) -> tuple[GateView, ...]:
        """Return how each gate is, for people."""

    def room(self, wanted: Sequence[Sequence[Gate]]) -> tuple[int, ...]:
        """Return, for each group of gates, how many sessions may begin through it now.

        :data:`mailq.limits.buckets.NO_END` where nothing bounds them.
        """

    def revive(self, gates: Sequence[Gate]) -> None:
        """Forget that a destination is dead: somebody asked for its mail to be tried. Source: smtp-delivery Q-39."""

    def close(self) -> None:
        """Let go of connections; what is held stays held until it runs out."""


def new_token(owner: str) -> str:
    """Return a token that nobody else has, and that says whose it is."""
    return f"{owner}/{secrets.token_hex(8)}"


def owner_of(token: str) -> str:
    """Return who took *token*."""
    return token.rpartition("/")[0]
