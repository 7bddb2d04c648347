"""A conversation with one server: say, hear, and whether it can be used again.

The session knows nothing of recipients or other servers. Every wait has an
end: a reply must be complete within its stage's timeout, however slowly its
bytes come, so a server that drips cannot hold a slot.

Differs from Postfix: the timeout is per reply, not per read, as with
smtp_per_request_deadline=yes.

Source: smtp-delivery R-01 to R-06, R-46, S-06, S-50 to S-61.
"""

import itertools
from collections.abc import Hashable
from datetime import timedelta
from typing import TYPE_CHECKING

from mailq.delivery.hooks import NO_HOOKS, Hooks
from mailq.delivery.pace import Pace, patience_of
from mailq.delivery.ports import Clock, Connection, Passage
from mailq.delivery.transcript import Transcript
from mailq.errors import (
    ConnectionLostError,
    ConnectionTimeoutError,
    EarlyReplyError,
    HookFailedError,
    ReplyTooLongError,
)
from mailq.security import NO_TLS, TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.smtp import commands
from mailq.smtp.credentials import Secret, without
from mailq.smtp.extensions import NONE
from mailq.smtp.replies import ReplyReader
from mailq.status import Endpoint, Reply, Stage
from mailq.tls.server import Server

if TYPE_CHECKING:
    from mailq.delivery.following import Following

SessionKey = tuple[Hashable, ...]
"""What sessions are kept apart by."""

_numbers = itertools.count(1)

STREAM_ERRORS = (ConnectionLostError, ConnectionTimeoutError, ReplyTooLongError, EarlyReplyError, HookFailedError)


class Session:
    """An open conversation.

    Attributes:
        endpoint: The server.
        extensions: What the server offers; none before the handshake.
        stage: What is being done, for naming a lost connection.
        broken: The stream is of no use: nothing more is written to it.
        transcript: What was said since it was last taken.
        key: What it is kept under; it stays that of whoever opened the session.
        policy: Which encryption it must have.
        server: What that was chosen for; None where nothing was chosen.
        tls: What its encryption is; None until that is settled.
        login: By which mechanism and with what result a log-in was tried; empty: it was not.
        passage: The right to be open; None: nobody counts.
        seconds: How long each part of the present attempt took, see :class:`~mailq.status.SessionFacts`.
        stages: How long the server was waited for in each stage of it, likewise.
        number: Among all sessions of this process.
        owes_proof: It was kept, and has not answered since: RSET goes before anything else.
        stale: It was kept for too long, and is of no use.
        patience: How long the server may take for the replies of a transaction.
        following: A transaction whose commands have been said and whose replies nobody has heard; None: there is none.
        in_step: False where what it said to such commands made no sense.
    """

    def __init__(
        self,
        connection: Connection,
        endpoint: Endpoint,
        *,
        clock: Clock,
        settings: Settings,
        hooks: Hooks = NO_HOOKS,
        key: SessionKey = (),
        policy: TlsPolicy = NO_TLS,
        server: Server | None = None,
        passage: Passage | None = None,
    ) -> None:
        """Take over a fresh *connection* to *endpoint*."""
        self.endpoint = endpoint
        self.key = key
        self.policy = policy
        self.server = server
        self.passage = passage
        self.tls: TlsResult | None = None
        self.login = ""
        self.seconds: dict[str, float] = {}
        self.stages: dict[Stage, float] = {}
        self.number = next(_numbers)
        self.owes_proof = self.stale = False
        self.following: Following | None = None
        self.in_step = True
        self.settings = settings
        self.extensions = NONE
        self.stage = Stage.GREETING
        self.broken = False
        self._connection = connection
        self._clock = clock
        self.transcript = Transcript.of(settings)
        self.patience = patience_of(settings)
        self._hooks = hooks
        self._secrets: frozenset[Secret] = frozenset()
        self._garbled = False
        self._reader = self._new_reader()
        self._expires_at = clock.monotonic() + settings.connection_reuse_time_limit.total_seconds()
        self._reuses = 0
        self._spoiled = False
        self._closed = False

    @property
    def encrypted(self) -> bool:
        """Whether TLS is on."""
        return self._connection.encrypted

    @property
    def garbled(self) -> bool:
        """Whether the server ever said what is no reply. Source: smtp-delivery S-01."""
        return self._garbled or self._reader.garbage_seen

    @property
    def keepable(self) -> bool:
        """Whether another transaction may use this session. Source: smtp-delivery R-02, R-03, R-06, P-28."""
        limit = self.settings.connection_reuse_count_limit
        most = 0 if self.passage is None else self.passage.most_messages
        return not (
            self.broken
            or self._spoiled
            or self.garbled
            or (self._reader.pending and self.following is None)
            or self._clock.monotonic() >= self._expires_at
            or (limit > 0 and self._reuses >= limit)
            or 0 < most <= self._reuses + 1
            or (self.encrypted and not self.policy.reuse)
        )

    @property
    def authenticated(self) -> bool:
        """Whether we are logged in."""
        return self.login.endswith(" accepted")

    @property
    def reused(self) -> bool:
        """Whether it was kept and taken again."""
        return self._reuses > 0

    def channel_binding(self, kind: str) -> bytes | None:
        """Return what only the two ends of this TLS connection know; None where there is none of this *kind*."""
        return self._connection.channel_binding(kind)

    def conceal(self, *secrets: Secret) -> None:
        """Leave *secrets* out of whatever the server says from here on: it may repeat what it was told."""
        self._secrets |= frozenset(secrets)

    def spoil(self) -> None:
        """Do not use this session again, but end it politely."""
        self._spoiled = True

    def say(self, data: bytes, stage: Stage, timeout: timedelta) -> None:
        """Send *data*.

        Raises:
            ConnectionLostError: The server is gone.
            ConnectionTimeoutError: It takes nothing.
        """
        self.stage = stage
        self.transcript.said(data, stage)
        try:
            self._connection.send(data, timeout_seconds=timeout.total_seconds())
        except STREAM_ERRORS:
            self.broken = True
            raise

    def say_content(self, data: bytes, pace: Pace) -> None:
        """Send a piece of the content, in the time that is left for it. Raises as :meth:`say`."""
        sent = 0
        while sent < len(data):
            if pace.left_seconds <= 0:
                self.stage, self.broken = Stage.BODY, True
                raise ConnectionTimeoutError
            end = sent + pace.step_bytes
            piece = data if end >= len(data) and not sent else data[sent:end]
            began = self._clock.monotonic()
            self.say(piece, Stage.BODY, timedelta(seconds=pace.left_seconds))
            seconds = self._clock.monotonic() - began
            pace.wrote(len(piece), seconds=seconds)
            self._waited(Stage.BODY, seconds)
            sent += len(piece)

    def has_unheard(self) -> bool:
        """Whether the server has said, or done, something that nobody has heard yet; does not wait."""
        if self._reader.pending:
            return True
        try:
            self._reader.feed(self._connection.receive(timeout_seconds=0))
        except ConnectionTimeoutError:
            return False
        except ConnectionLostError:
            pass  # Whoever listens next is told.
        return True

    def hear(self, stage: Stage, timeout: timedelta) -> Reply:
        """Return the next reply.

        Args:
            stage: What the reply is about.
            timeout: For the whole reply.

        Raises:
            ConnectionLostError: The server is gone.
            ConnectionTimeoutError: The reply was not complete in time.
            ReplyTooLongError: The reply has no end.
        """
        self.stage = stage
        try:
            reply = self._reader.next_reply()
            if reply is None:
                return self._hear(stage, timeout.total_seconds())
        except STREAM_ERRORS:
            self.broken = True
            raise
        if stage not in self.stages:
            self.stages[stage] = 0.0
        return reply

    def ask(self, data: bytes, stage: Stage, timeout: timedelta) -> Reply:
        """Send a command and return its reply. Raises as :meth:`say` and :meth:`hear`."""
        self.say(data, stage, timeout)
        return self.hear(stage, timeout)

    def start_tls(self) -> TlsResult:
        """Encrypt from here on; what was heard before is forgotten, so nothing can be injected.

        Raises:
            TlsHandshakeError: The session is broken.
        """
        self.stage = Stage.TLS
        self._garbled = self.garbled
        self._reader = self._new_reader()
        self.extensions = NONE
        self.broken = True
        began = self._clock.monotonic()
        try:
            result = self._connection.start_tls(
                self.policy, host=self.endpoint.host, timeout_seconds=self.settings.starttls_timeout.total_seconds()
            )
        finally:
            self._waited(Stage.TLS, self._clock.monotonic() - began)
        self.tls = result
        self.broken = False
        return result

    def take_again(self) -> bool:
        """Count a reuse; False where the kept session is seen to be of no use. Otherwise it owes a proof."""
        self._reuses += 1
        if self.following is not None:
            return True
        # Something like "421 idle too long", or a reply too many: it would be taken for the answer to RSET.
        self.owes_proof = not self.has_unheard()
        return self.owes_proof

    def prove(self) -> bool:
        """Return whether a kept session still answers, in step. Source: smtp-delivery R-46."""
        try:
            answered = self.ask(commands.RSET, Stage.RSET_PROBE, self.settings.rset_timeout).positive
        except STREAM_ERRORS:
            return False
        self.owes_proof = not answered or self._reader.pending
        return not self.owes_proof

    def quit(self) -> None:
        """End the session: QUIT where the stream allows it, without waiting for the answer by default.

        A server that may be waiting for content would take it for that.
        """
        if not self.broken and not self._closed and self.following is None:
            try:
                self.say(commands.QUIT, Stage.QUIT, self.settings.quit_timeout)
                if not self.settings.skip_quit_response:
                    self.hear(Stage.QUIT, self.settings.quit_timeout)
            except STREAM_ERRORS:
                pass  # The mail is settled; how the server takes its leave changes nothing. Source: T-39.
        self.close()

    def close(self) -> None:
        """Close without a word."""
        self._closed = True
        # The reader knows the session, and they would keep each other until a collection.
        self._garbled, self._reader = self.garbled, ReplyReader()
        self._connection.close()
        # Not before: whoever waits for it may connect at once.
        passage, self.passage = self.passage, None
        if passage is not None:
            passage.leave()

    def _waited(self, stage: Stage, seconds: float) -> None:
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def _new_reader(self) -> ReplyReader:
        return ReplyReader(line_filter=self._heard)

    def _heard(self, line: bytes) -> bytes:
        if self._secrets:
            line = without(self._secrets, line)
        if self.transcript.kept:
            self.transcript.heard(line, self.stage)
        return self._hooks.reply_line(line) if self._hooks.reply_filter else line

    def _hear(self, stage: Stage, seconds: float) -> Reply:
        """Wait for the rest of a reply."""
        began = now = self._clock.monotonic()
        deadline = began + seconds
        try:
            while True:
                self._reader.feed(self._connection.receive(timeout_seconds=deadline - now))
                reply = self._reader.next_reply()
                if reply is not None:
                    return reply
                now = self._clock.monotonic()
                if now >= deadline:
                    raise ConnectionTimeoutError
        finally:
            self._waited(stage, self._clock.monotonic() - began)
