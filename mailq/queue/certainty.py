"""What follows when nobody knows whether a message was sent, and when our own code stumbled over it. No I/O.

A server that got the final dot and did not answer may have the message: RFC
5321 §4.5.3.2.6 asks for long patience, and when that ends the attempt is
*uncertain*. So is one whose worker was lost between the dot and the record.
What follows is a choice between once more and once too few, made by class of
mail: try again, hold for people, or take it for sent.

A message that makes our own code, a hook or a whole worker stumble is tried
again a few times and then put into *quarantine*, so that it neither goes
round for ever nor is lost; everything else flows.

Invariant: a recipient that a server answered for is never uncertain.

Source: smtp-delivery T-36 to T-39, Q-04, Q-45; RFC 5321 §6.1; RFC 1047
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from mailq.errors import SettingError
from mailq.queue.backoff import Disposition, Done, RetryAt
from mailq.settings import Settings
from mailq.status import Deferred, Delivered, EnhancedStatus, Failure, Outcome, Severity, Stage

LOST_STATUS: Final = EnhancedStatus(Severity.TRANSIENT, 3, 0)
LOST_REASON: Final = "the worker was lost while it was delivering this; it may have been sent"
LOST_FAULT: Final = "The worker ended, or could not say what happened, while it was at work on this message."


class UncertainPolicy(StrEnum):
    """What becomes of a recipient that may have been sent to."""

    RETRY = "retry"
    HOLD = "hold"
    ASSUME_SENT = "assume-sent"


@dataclass(frozen=True, slots=True)
class SetAside:
    """Hold it until people decide."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Do not touch it again until people have looked at it."""


Ruling = Disposition | SetAside | Quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class CertaintyRules:
    """How doubt and stumbling are dealt with.

    Attributes:
        policy: For mail whose class has none of its own.
        by_class: Policies by class of mail.
        quarantine_after: So many attempts in a row that stumble lead into quarantine; at least 1.
        spread: What a lost worker was at work on is due again at random times within this, more for what was so
            before: whichever of them ends workers is then soon alone in doing so.
    """

    policy: UncertainPolicy = UncertainPolicy.RETRY
    by_class: Mapping[str, UncertainPolicy] = field(default_factory=dict)
    quarantine_after: int = 3
    spread: timedelta = timedelta(0)

    @classmethod
    def of(cls, settings: Settings) -> "CertaintyRules":
        """Read the settings.

        Raises:
            SettingError: ``uncertain_policies`` cannot be used.
        """
        return cls(
            policy=UncertainPolicy(settings.uncertain_policy),
            by_class=dict(_entry(entry) for entry in settings.uncertain_policies),
            quarantine_after=settings.quarantine_after,
            spread=settings.lease_time,
        )

    @property
    def is_the_same_for_all(self) -> bool:
        """Whether mail of every class is tried again where nobody knows."""
        return {self.policy, *self.by_class.values()} == {UncertainPolicy.RETRY}

    def policy_for(self, mail_class: str) -> UncertainPolicy:
        """Return the policy for mail of *mail_class*; empty is none."""
        return self.by_class.get(mail_class, self.policy)


def _entry(entry: str) -> tuple[str, UncertainPolicy]:
    name, separator, word = (part.strip() for part in entry.partition("="))
    if not name or not separator or word not in set(UncertainPolicy):
        choices = ", ".join(UncertainPolicy)
        raise SettingError(f"setting 'uncertain_policies': {entry!r} is not class=policy, with a policy of {choices}")
    return name, UncertainPolicy(word)


def is_uncertain(outcome: Outcome) -> bool:
    """Whether the recipient may have been sent to: some server got the final dot and never answered it."""
    if isinstance(outcome, Delivered):
        return False
    return any(_is_unanswered(failure) for failure in (*outcome.earlier, outcome.failure))


def _is_unanswered(failure: Failure) -> bool:
    return failure.stage is Stage.END_OF_DATA and failure.reply is None


def fault_of(outcome: Outcome) -> str:
    """Return where our own code or a hook failed; empty when neither did."""
    return outcome.failure.fault if isinstance(outcome, Deferred) else ""


def after_attempt(
    outcome: Outcome, disposition: Disposition, *, mail_class: str, stumbles: int, rules: CertaintyRules
) -> Ruling:
    """Return what follows from an attempt.

    Args:
        outcome: Of the attempt.
        disposition: What would follow if nothing were in doubt.
        mail_class: Of the message; empty is none.
        stumbles: How many attempts before this one stumbled, without another in between.
        rules: In force.
    """
    if isinstance(outcome, Deferred) and is_uncertain(outcome):
        match rules.policy_for(mail_class):
            case UncertainPolicy.HOLD:
                return SetAside()
            case UncertainPolicy.ASSUME_SENT:
                return Done()
    if isinstance(disposition, RetryAt) and fault_of(outcome) and stumbles + 1 >= rules.quarantine_after:
        return Quarantine()
    return disposition


def after_loss(*, mail_class: str, stumbles: int, now: datetime, chance: float, rules: CertaintyRules) -> Ruling:
    """Return what follows for a recipient whose worker was lost while it was at work on it.

    Args:
        mail_class: Of the message; empty is none.
        stumbles: How many attempts before this one stumbled, without another in between.
        now: By the database's clock.
        chance: From 0 to 1, drawn by the caller.
        rules: In force.
    """
    match rules.policy_for(mail_class):
        case UncertainPolicy.HOLD:
            return SetAside()
        case UncertainPolicy.ASSUME_SENT:
            return Done()
    if stumbles + 1 >= rules.quarantine_after:
        return Quarantine()
    return RetryAt(now + rules.spread * (stumbles + 1) * chance)
