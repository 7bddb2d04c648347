"""The port through which all workers share a site: so many sessions at a time, and no more.

A slot is held under a token that runs out: a worker that dies gives its slots
back without anybody's help. Windows and rates are to join here; a caller
knows only that it may begin, or may not.

Source: celery.md §1.3, §6 pitfall 15; postconf(5) default_destination_concurrency_limit.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has a slot.

    Attributes:
        owner: The worker, as it named itself; empty when it gave no name.
        ends_in: The slot is free again after this, unless it is renewed.
    """

    owner: str
    ends_in: timedelta


class Slots(Protocol):
    """Counts who is talking to whom; safe to use from many threads."""

    def take(self, key: str, *, limit: int, hold_for: timedelta, owner: str = "") -> str | None:
        """Take one of *limit* slots of *key*, and return its token; None when all are taken.

        Args:
            key: What is shared, such as a nexthop.
            limit: 0 is no limit; the slot is counted all the same.
            hold_for: The slot is free again after this, unless it is renewed.
            owner: Who takes it, for people to read.

        Raises:
            BrokerUnavailableError: Whoever counts cannot be reached.
        """

    def renew(self, held: Iterable[tuple[str, str]], *, hold_for: timedelta) -> None:
        """Hold every (key, token) pair for another *hold_for*.

        A slot that ran out meanwhile, or was wiped, is counted again: its
        session goes on, so the count may exceed a limit until somebody ends.

        Raises:
            BrokerUnavailableError: Whoever counts cannot be reached.
        """

    def release(self, key: str, token: str) -> None:
        """Give a slot back; harmless when it is gone already.

        Raises:
            BrokerUnavailableError: Whoever counts cannot be reached.
        """

    def held(self, key: str) -> int:
        """Return how many slots of *key* are taken now, over all workers.

        Raises:
            BrokerUnavailableError: Whoever counts cannot be reached.
        """

    def holders(self, key: str) -> tuple[Holder, ...]:
        """Return who has a slot of *key* now, over all workers, by name.

        Raises:
            BrokerUnavailableError: Whoever counts cannot be reached.
        """

    def close(self) -> None:
        """Let go of connections; what is held stays held until it runs out."""


def new_token(owner: str) -> str:
    """Return a token that nobody else has, and that says whose it is."""
    return f"{owner}/{uuid.uuid4().hex}"


def holder_of(token: str, ends_in: timedelta) -> Holder:
    """Return what *token* says."""
    return Holder(owner=token.rpartition("/")[0], ends_in=ends_in)
