"""The order of a mail transaction, without a socket.

Ask :meth:`Transaction.next_step` what to write and how many replies to
read, write it, and tell each reply to :meth:`Transaction.receive` in order.

- With PIPELINING, commands go out in groups of at most 4096 bytes, and no
  course is changed inside a group. Without, a group is one command.
- Content is sent only when somebody was accepted, and the server asked for it or takes it unasked, by BDAT.
- A transaction that leads nowhere is ended by RSET; where the server waits
  for content that nobody is to get, by a lone dot.
- Each recipient is refused or delivered at most once; the others are
  *undecided*, and the one rejection, or the loss of the connection, is theirs.

Source: RFC 5321 §4.1.4, RFC 2920 §3.1, RFC 2033 §4.2, smtp-delivery X-10 to X-12, X-30 to X-41, X-50 to X-53, X-66.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, NamedTuple

from mailq.smtp import commands
from mailq.status import RecipientId, Reply, Stage

GROUP_LIMIT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Send:
    """Write *data*, then read one reply for each stage of *expects*."""

    data: bytes
    expects: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class SendContent:
    """Write the content and the final dot, say so, then read *expects* replies.

    Say so with :meth:`Transaction.content_written`, or :meth:`Transaction.content_failed`.
    With *in_chunk* the content goes behind ``BDAT size LAST``, undotted and without a final dot.
    """

    expects: int
    in_chunk: bool = False


class Refusal(NamedTuple):
    """A reply that was not the one hoped for, and the command it answers."""

    stage: Stage
    reply: Reply


class _Phase(Enum):
    ENVELOPE = auto()
    CONTENT = auto()
    WRITING = auto()
    LONE_DOT = auto()
    ABORT = auto()
    END = auto()


# Stage, what is written, and whom it is about.
_Command = tuple[Stage, bytes, RecipientId | None]


_ALL: Final = (None,)
_PROBE: Final[_Command] = (Stage.RSET_PROBE, commands.RSET, None)
_DATA: Final[_Command] = (Stage.DATA, commands.DATA, None)


class Transaction:
    """One message to one server.

    Calls out of order raise :class:`RuntimeError`: they are bugs of the caller.

    Attributes:
        lmtp: One reply to the content is expected for every accepted recipient. Source: RFC 2033 §4.2.

    Args:
        mail: The MAIL command.
        recipients: Each with its RCPT command, at least one.
        pipelining: The server offers PIPELINING.
        lmtp: As above.
        chunking: The server offers CHUNKING and the content fits one chunk. It is used only without PIPELINING: then
            BDAT, which needs no go-ahead, saves the round trip of DATA. Source: RFC 3030.
        probe: The session was kept: RSET goes first, in the same write as MAIL where that can be, and shows whether
            the session is still of use. Source: smtp-delivery R-46.
        follows: The commands go out behind the end of the transaction before, see :attr:`proven`. Source: RFC 2920
            §3.1.
    """

    def __init__(
        self,
        *,
        mail: bytes,
        recipients: Sequence[tuple[RecipientId, bytes]],
        pipelining: bool,
        lmtp: bool = False,
        chunking: bool = False,
        probe: bool = False,
        follows: bool = False,
    ) -> None:
        if not recipients:
            raise ValueError("a transaction needs a recipient")
        self._recipients = recipients
        self._commands: list[_Command] = [_PROBE] if probe else []
        self._commands.append((Stage.MAIL, mail, None))
        self._commands += [(Stage.RCPT, data, recipient) for recipient, data in recipients]
        self._commands.append(_DATA)
        self._following = 0
        self._group_limit_bytes = GROUP_LIMIT_BYTES if pipelining else 0
        self._in_chunk = chunking and not pipelining
        self.lmtp = lmtp
        self._phase = _Phase.ENVELOPE
        # The last one first.
        self._awaited: list[_Command] = []
        self._last_stage = Stage.MAIL
        self._accepted: list[RecipientId] = []
        self._refused: dict[RecipientId, Refusal] = {}
        self._delivered: dict[RecipientId, Reply] = {}
        self._rejected: Refusal | None = None
        self._content_sent = False
        self._content_failed = False
        self._stale = False
        self._follows = follows
        self._proven = not (probe or follows)

    @property
    def stage(self) -> Stage:
        """What is being sent or waited for: it names a lost connection. Source: smtp-delivery T-38."""
        return self._awaited[-1][0] if self._awaited else self._last_stage

    @property
    def refused(self) -> Mapping[RecipientId, Refusal]:
        """Recipients refused one by one: at RCPT, or with LMTP at the end of the content."""
        return MappingProxyType(self._refused)

    @property
    def delivered(self) -> Mapping[RecipientId, Reply]:
        """Recipients that the server took responsibility for, with its reply to the content."""
        return MappingProxyType(self._delivered)

    @property
    def rejected(self) -> Refusal | None:
        """The refusal of MAIL, DATA or the content; it is about every undecided recipient."""
        return self._rejected

    @property
    def undecided(self) -> tuple[RecipientId, ...]:
        """Recipients neither refused nor delivered, in the order given."""
        told = self._refused.keys() | self._delivered.keys()
        return tuple(each for each, _ in self._recipients if each not in told)

    @property
    def stale(self) -> bool:
        """Whether a kept session turned out to be of no use any more; nothing else that the server says counts."""
        return self._stale

    @property
    def proven(self) -> bool:
        """Whether the server is known to answer, and to answer this transaction: else nothing that it says counts.

        A kept session is proven by its answer to RSET. Where the transaction follows another, a reply too many, or
        one too few, to that one would be taken for the next: what shows that there is none is a reply that only its
        own command can have, which is the go-ahead to DATA, or a good one to the RSET behind a refusal.
        """
        return self._proven

    @property
    def content_sent(self) -> bool:
        """Whether the content went out whole, final dot included: the server may have taken the message."""
        return self._content_sent

    @property
    def finished(self) -> bool:
        """Whether nothing is left to write or read."""
        return self._phase is _Phase.END and not self._awaited

    @property
    def clean(self) -> bool:
        """Whether the transaction ended in step with the server, so that the session may be used again."""
        return self.finished and not self._content_failed

    def next_step(self) -> Send | SendContent | None:
        """Return what to write next; None when the transaction has ended."""
        phase = self._phase
        if self._awaited or phase is _Phase.WRITING:
            raise RuntimeError("the step before this one is not complete")
        if phase is _Phase.ENVELOPE:
            return self._envelope()
        if phase is _Phase.CONTENT:
            return self._content()
        if phase is _Phase.LONE_DOT:
            return self._last_command(Stage.END_OF_DATA, commands.END_OF_DATA)
        return self._last_command(Stage.RSET, commands.RSET) if phase is _Phase.ABORT else None

    def receive(self, reply: Reply) -> None:
        """Take the next expected reply."""
        if not self._awaited or self._phase is _Phase.WRITING:
            raise RuntimeError("no reply is expected")
        stage, _, recipient = self._awaited.pop()
        self._last_stage = stage
        if stage is Stage.RCPT:
            self._rcpt_reply(recipient, reply)
        elif stage is Stage.RSET_PROBE:
            self._prove(proven=reply.positive)
        elif stage is Stage.MAIL:
            self._mail_reply(reply)
        elif stage is Stage.DATA:
            self._data_reply(reply)
        elif stage is not Stage.RSET:
            self._content_reply(recipient, reply)
        elif not self._proven:  # Else nothing depends on it. Source: smtp-delivery X-41
            self._prove(proven=reply.positive)

    def content_written(self) -> None:
        """Note that the content and the final dot are on their way."""
        self._leave_writing()
        self._content_sent = True
        self._awaited = [(Stage.END_OF_DATA, b"", recipient) for recipient in reversed(self._content_repliers())]

    def content_failed(self) -> None:
        """Note that the connection broke before the content was out.

        One reply may still be read and told: servers explain themselves before they hang up, and that
        explanation counts as the reply to the content. Source: smtp-delivery X-66.
        """
        self._leave_writing()
        self._content_failed = True
        self._awaited = [(Stage.BODY, b"", self._content_repliers()[0])]

    def _envelope(self) -> Send | SendContent:
        stage = self._commands[self._following][0]
        if self._leads_nowhere(stage):
            return self._last_command(Stage.RSET, commands.RSET)
        return self._content() if self._in_chunk and stage is Stage.DATA else self._command_group()

    def _leads_nowhere(self, following: Stage) -> bool:
        """Whether we know, in step with the server, that nobody will get the message. Source: X-50, X-51."""
        return (following is Stage.RCPT and self._rejected is not None) or (
            following is Stage.DATA and not self._accepted
        )

    def _command_group(self) -> Send:
        start = self._following
        end, length = start + 1, len(self._commands[start][1])
        for _, data, _ in self._commands[end:]:
            length += len(data)
            if length > self._group_limit_bytes:
                break
            end += 1
        group, self._following = self._commands[start:end], end
        self._awaited = group[::-1]
        return Send(b"".join([data for _, data, _ in group]), tuple([stage for stage, _, _ in group]))

    def _content(self) -> SendContent:
        self._phase = _Phase.WRITING
        self._last_stage = Stage.BODY
        return SendContent(len(self._content_repliers()), self._in_chunk)

    def _last_command(self, stage: Stage, data: bytes) -> Send:
        self._phase = _Phase.END
        self._awaited = [(stage, data, None)]
        return Send(data, (stage,))

    def _leave_writing(self) -> None:
        if self._phase is not _Phase.WRITING:
            raise RuntimeError("no content is being written")
        self._phase = _Phase.END

    def _content_repliers(self) -> Sequence[RecipientId | None]:
        """Return whom each reply to the content is about; None for all."""
        return self._accepted if self.lmtp else _ALL

    def _prove(self, *, proven: bool) -> None:
        self._proven, self._stale = proven, not proven

    def _mail_reply(self, reply: Reply) -> None:
        if not reply.positive:
            # Perhaps the server wants to be asked again after each message.
            self._stale = self._follows and reply.is_protocol_error
            self._rejected = Refusal(Stage.MAIL, reply)

    def _rcpt_reply(self, recipient: RecipientId | None, reply: Reply) -> None:
        if recipient is None or self._rejected is not None:
            # Behind a refused MAIL these only say "no sender yet". Source: smtp-delivery X-31
            return
        if reply.positive:
            self._accepted.append(recipient)
        else:
            self._refused[recipient] = Refusal(Stage.RCPT, reply)

    def _data_reply(self, reply: Reply) -> None:
        asks_for_content = 300 <= reply.code <= 399  # noqa: PLR2004 - RFC 5321 §4.2.1
        if asks_for_content:
            self._proven = True
            self._phase = _Phase.CONTENT if self._accepted else _Phase.LONE_DOT
            return
        self._phase = _Phase.ABORT
        if self._accepted:
            self._rejected = Refusal(Stage.DATA, reply)

    def _content_reply(self, recipient: RecipientId | None, reply: Reply) -> None:
        if recipient is not None:
            if reply.positive:
                self._delivered[recipient] = reply
            else:
                self._refused[recipient] = Refusal(Stage.END_OF_DATA, reply)
        elif not self._accepted:
            return  # The lone dot: there is nobody to deliver to. Source: smtp-delivery X-39
        elif reply.positive:
            self._delivered |= dict.fromkeys(self._accepted, reply)
        else:
            self._rejected = Refusal(Stage.END_OF_DATA, reply)
