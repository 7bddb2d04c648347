"""The queue for asyncio: the same verbs, awaited; works under any ASGI server.

The work is done by :class:`mailq.Queue` in a few threads of its own, so the
event loop never waits for a database or a broker. A message is queued in the
caller's transaction where an AsyncSession or AsyncConnection is given; ringing
the workers after that commit is a thread's affair, too.

A cancelled call leaves nothing half done, and nothing running: work that no
thread had begun is withdrawn; work that was begun is waited for, to its end,
before the cancellation is passed on. So after a cancelled :meth:`AsyncQueue.send`
the message is either queued, as a whole, or not, and that no longer changes.
Which of both is told by sending again under the same ``idempotency_key``: the
queue holds it once either way. In a caller's transaction, cancelling leaves
the decision where it was: with that transaction.
"""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from mailq.api import Queue, Ring, Submission, SubmissionOptions
from mailq.errors import EnvelopeError
from mailq.queue.explain import Explanation
from mailq.queue.states import ShownState
from mailq.queue.views import MessageView, RecipientView
from mailq.selection import Criteria
from mailq.settings import Settings

__all__ = ["AsyncQueue", "AsyncTransaction"]

AsyncTransaction = AsyncConnection | AsyncSession | async_scoped_session[Any]
_T = TypeVar("_T")
_FINAL: Final = frozenset({ShownState.SENT, ShownState.BOUNCED, ShownState.EXPIRED, ShownState.CANCELLED})
_THREADS: Final = 4
_LOOK: Final = timedelta(seconds=0.5)


class AsyncQueue:
    """The queue as an asynchronous application sees it; for any number of tasks, of one event loop at a time.

    Nothing is connected before the first use; see :class:`mailq.Queue`.

    Args:
        database: URL of the queue; None is ``settings.database_url``.
        settings: None reads them from the environment.
        threads: Most calls that are at work at a time; others wait for their turn.
        ring: As for :class:`mailq.Queue`; called in a thread.

    Raises:
        ConfigError: The settings cannot be used.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        settings: Settings | None = None,
        threads: int = _THREADS,
        ring: Ring | None = None,
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="mailq-aio")
        self.queue: Queue = _LoopQueue(database, settings=settings, ring=ring, aside=self._threads)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self, message: Any = None, *, connection: AsyncTransaction | None = None, **options: Unpack[SubmissionOptions]
    ) -> str:
        """Queue one message and return its queue id; arguments and errors are those of :meth:`mailq.Queue.send`.

        Args:
            message: None composes one.
            connection: Of SQLAlchemy: the message is queued in its transaction. None: at once.
            options: See :class:`mailq.Submission`.
        """
        return (await self.send_many([Submission(message=message, **options)], connection=connection))[0]

    async def send_many(
        self, submissions: Iterable[Submission], *, connection: AsyncTransaction | None = None
    ) -> list[str]:
        """Queue many messages, all or none, and return their queue ids in order; otherwise as :meth:`send`."""
        if connection is None:
            return await self.run(self.queue.send_many, list(submissions))
        if isinstance(connection, async_scoped_session):
            connection = connection()
        if not isinstance(connection, AsyncConnection | AsyncSession):
            raise EnvelopeError(
                f"connection is an AsyncConnection or AsyncSession of SQLAlchemy, not {type(connection).__name__}"
            )
        given = list(submissions)
        return await connection.run_sync(lambda inner: self.queue.send_many(given, connection=inner))

    async def show(self, queue_id: str) -> MessageView:
        """Return a message with its recipients and everything that happened to them, as :meth:`mailq.Queue.show`."""
        return await self.run(self.queue.show, queue_id)

    async def status(self, queue_id: str) -> Mapping[str, ShownState]:
        """Return the state of each recipient, by address."""
        return await self.run(self.queue.status, queue_id)

    async def find(self, *, limit: int = 100, after: int = 0, **criteria: Unpack[Criteria]) -> Sequence[RecipientView]:
        """Return at most *limit* recipients, oldest first, with ids above *after*."""
        return await self.run(partial(self.queue.find, limit=limit, after=after, **criteria))

    async def explain(self, queue_id: str) -> Sequence[Explanation]:
        """Say of each recipient what keeps it from being tried now, and what happens next."""
        return await self.run(self.queue.explain, queue_id)

    async def wait(
        self,
        queue_id: str,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 - told in words which recipients wait
        look_every: timedelta = _LOOK,
    ) -> MessageView:
        """Return the message as soon as each of its recipients is sent, bounced, expired or cancelled.

        Args:
            queue_id: Of a message that is committed.
            timeout: None: as long as it takes, which may be days.
            look_every: Pause between two looks at the database.

        Raises:
            TimeoutError: Some recipient was not finished after *timeout*; the mail goes its way all the same.
            UnknownMessageError: There is none.
        """
        ends_at = None if timeout is None else time.monotonic() + timeout.total_seconds()
        while True:
            message = await self.show(queue_id)
            waiting = [one.address for one in message.recipients if one.state not in _FINAL]
            if not waiting:
                return message
            pause = look_every.total_seconds()
            if ends_at is not None:
                pause = min(pause, ends_at - time.monotonic())
                if pause <= 0:
                    raise TimeoutError(f"{queue_id} is not finished: {', '.join(waiting[:3])} waits")
            await asyncio.sleep(pause)

    async def run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Run *work* in a thread and return its result: any verb of ``queue`` that has no method here.

        Cancelled, it behaves as the module says.
        """
        context = contextvars.copy_context()
        begun: Future[_T] = self._threads.submit(context.run, work, *arguments)
        result = asyncio.wrap_future(begun)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if not begun.cancel():
                await _ended(result)
            raise

    async def close(self) -> None:
        """Wait for the calls that are at work, and close what this queue opened."""
        await self.run(self.queue.close)
        self._threads.shutdown(wait=True, cancel_futures=True)


class _LoopQueue(Queue):
    """A queue that tells the workers of new mail from a thread, wherever the commit took place."""

    def __init__(self, database: str | None, *, aside: ThreadPoolExecutor, **options: Any) -> None:
        super().__init__(database, **options)
        self._aside = aside

    def _tell_now(self, nexthops: Iterable[str]) -> None:
        tell = partial(super()._tell_now, tuple(nexthops))
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            tell()
            return
        # A closed queue rings no more; the dispatcher finds the mail.
        with suppress(RuntimeError):
            self._aside.submit(tell)


async def _ended(result: Awaitable[object]) -> None:
    """Wait until *result* is there, however often the waiting is cancelled; its error has nobody to go to."""
    waited = asyncio.ensure_future(result)
    while not waited.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({waited})
    if not waited.cancelled():
        waited.exception()
