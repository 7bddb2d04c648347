"""Keep the fate of every recipient of one delivery request.

Invariant: a recipient enters once, is pending until a server accepts it or a
failure settles it, and leaves :meth:`Ledger.close` with exactly one outcome.

Rules: one verdict a pending recipient a session; a session-wide failure
applies only to those without their own; the latest evidence wins; a failure
that settles ends the recipient at once; at close, transient becomes deferred
and permanent becomes bounced; the destination is sick only if a recipient's
last evidence is a transient, server-wide failure and no transaction was
carried through.

Differs from Postfix: outcomes are decided at close, so nobody needs to know
whether the server being talked to is the last one.

Source: smtp_rcpt.c, smtp_trouble.c; smtp-delivery T-01 to T-06, T-20 to T-29, C-06, D-11.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from mailq.delivery.report import SessionReport
from mailq.status import (
    Bounced,
    Deferred,
    Delivered,
    DeliveryReport,
    EnhancedStatus,
    Failure,
    Outcome,
    RecipientId,
    Scope,
    Severity,
    Stage,
    Trouble,
)

# What is left when no server could even be asked. Source: smtp-delivery C-61.
UNAVAILABLE = Failure(
    status=EnhancedStatus(Severity.TRANSIENT, 3, 0),
    reason="server unavailable or unable to receive mail",
    stage=Stage.RESOLVE,
    scope=Scope.SERVER,
)


Refine = Callable[[Delivered | Failure], Delivered | Failure]


class Ledger:
    """The account of one request's recipients.

    Attributes:
        pending: Who still needs a server, in the order given.
    """

    def __init__(
        self, recipients: Iterable[RecipientId], *, soft_bounce: bool = False, refine: Refine | None = None
    ) -> None:
        """Open the account.

        Args:
            recipients: Each once.
            soft_bounce: No recipient ends in failure. Source: postconf(5) soft_bounce, smtp-delivery T-04, T-05.
            refine: Has the last word about an outcome's status and text, before soft_bounce; a failure stays one.
                Source: smtp-delivery T-09.

        Raises:
            ValueError: No recipient, or one given twice.
        """
        ids = tuple(recipients)
        self._evidence: dict[RecipientId, tuple[Failure, ...]] = dict.fromkeys(ids, ())
        if not ids or len(self._evidence) != len(ids):
            raise ValueError("a ledger needs at least one recipient, each once")
        self._soft_bounce = soft_bounce
        self._refine = refine
        self.pending = ids
        self._settled: dict[RecipientId, Outcome] = {}
        self._completed = False
        self._troubles: list[Trouble] = []

    def note_failure(self, failure: Failure) -> None:
        """Take in a failure that concerns every pending recipient, outside any session."""
        for recipient in self.pending:
            self._evidence[recipient] += (failure,)

    def note_session(self, report: SessionReport) -> Mapping[RecipientId, Outcome]:
        """Take in what one session told.

        Returns:
            The recipients that this session settled, to be recorded now.

        Raises:
            ValueError: A verdict about a recipient that is not pending.
        """
        strangers = report.verdicts.keys() - self.pending
        if strangers:
            raise ValueError(f"verdict about recipients that are not pending: {sorted(strangers)}")
        self._completed |= report.completed
        if report.trouble is not None:
            self._troubles.append(report.trouble)
        settled = {}
        for recipient in self.pending:
            verdict = report.verdicts.get(recipient, report.failure)
            outcome = None if verdict is None else self._weigh(recipient, verdict)
            if outcome is not None:
                settled[recipient] = outcome
        self._settle(settled)
        return settled

    def close(self) -> DeliveryReport:
        """Decide for whoever is still pending, and give the account."""
        self._settle({recipient: self._decide(recipient) for recipient in self.pending})
        return DeliveryReport(
            outcomes={r: self._settled[r] for r in self._evidence},
            destination_failure=self._destination_failure(),
            troubles=tuple(self._troubles),
        )

    def _settle(self, outcomes: Mapping[RecipientId, Outcome]) -> None:
        if outcomes:
            self._settled.update(outcomes)
            self.pending = tuple([one for one in self.pending if one not in outcomes])

    def _weigh(self, recipient: RecipientId, verdict: Delivered | Failure) -> Outcome | None:
        if isinstance(verdict, Delivered):
            refined = self._refined(verdict)
            delivered = refined if isinstance(refined, Delivered) else verdict
            earlier = self._evidence[recipient]
            return delivered if earlier == delivered.earlier else replace(delivered, earlier=earlier)
        self._evidence[recipient] += (verdict,)
        if verdict.settles and (verdict.transient or not self._soft_bounce):
            return self._decide(recipient)
        return None

    def _refined(self, verdict: Delivered | Failure) -> Delivered | Failure:
        return verdict if self._refine is None else self._refine(verdict)

    def _decide(self, recipient: RecipientId) -> Outcome:
        evidence = self._evidence[recipient] or (UNAVAILABLE,)
        earlier, refined = evidence[:-1], self._refined(evidence[-1])
        last = refined if isinstance(refined, Failure) else evidence[-1]
        if last.transient:
            return Deferred(last, earlier)
        if self._soft_bounce:
            return Deferred(replace(last, status=last.status.as_transient()), earlier)
        return Bounced(last, earlier)

    def _destination_failure(self) -> Failure | None:
        if self._completed:
            return None
        for outcome in self._settled.values():
            if isinstance(outcome, Deferred) and outcome.failure.scope is Scope.SERVER:
                return outcome.failure
        return None
