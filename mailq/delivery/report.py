"""What one conversation with one server told us."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mailq.status import Delivered, Failure, RecipientId, SessionFacts, Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """The evidence of one session.

    Attributes:
        verdicts: What the server said about single recipients.
        failure: What befell every recipient without a verdict; None when each has one.
        completed: A transaction was carried through, whatever its result: the destination is well.
            Source: smtp-delivery X-14.
        transacted: The handshake succeeded, so the session counts against the session limit.
            Source: smtp-delivery C-44, C-52.
        retry_plaintext: Ask this server once more, without TLS. Source: smtp-delivery P-30, P-32.
        stale: The session, which was kept, was of no use any more: nothing was offered to anybody, and nothing else
            here counts. Source: smtp-delivery R-46.
        trouble: What the postmaster may want to see of it; None when nothing. Source: smtp-delivery C-70.
    """

    verdicts: Mapping[RecipientId, Delivered | Failure] = field(default_factory=dict)
    failure: Failure | None = None
    completed: bool = False
    transacted: bool = False
    retry_plaintext: bool = False
    stale: bool = False
    trouble: Trouble | None = None

    def once_and_for_all(self) -> "SessionReport":
        """Return the report with a failure that no other server is to make good."""
        failure = None if self.failure is None else replace(self.failure, settles=True)
        return replace(self, failure=failure, retry_plaintext=False)

    def with_facts(self, facts: SessionFacts, *, of_delivered: SessionFacts | None = None) -> "SessionReport":
        """Return the report with *facts* at every verdict and at the failure.

        Args:
            facts: Of the session.
            of_delivered: The same for whoever was delivered to; None: no other.
        """
        taken = facts if of_delivered is None else of_delivered
        told: dict[int, Delivered] = {}
        verdicts: dict[RecipientId, Delivered | Failure] = {}
        for one, verdict in self.verdicts.items():
            if isinstance(verdict, Failure):
                verdicts[one] = replace(verdict, facts=facts)
                continue
            # The recipients that one reply was about share what became of them.
            known = told.get(id(verdict))
            verdicts[one] = known or told.setdefault(id(verdict), verdict.with_facts(taken))
        return SessionReport(
            verdicts=verdicts,
            failure=None if self.failure is None else replace(self.failure, facts=facts),
            completed=self.completed,
            transacted=self.transacted,
            retry_plaintext=self.retry_plaintext,
            stale=self.stale,
            trouble=self.trouble,
        )

    @property
    def has_failure(self) -> bool:
        """Whether anything failed for anybody."""
        return self.failure is not None or Failure in map(type, self.verdicts.values())
