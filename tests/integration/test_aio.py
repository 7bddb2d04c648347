"""The queue for asyncio, on both databases: at once, in a caller's transaction, and when it is cancelled."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, create_async_engine

from mailq import DatabaseUnavailableError, EnvelopeError, Settings, Submission, UnknownMessageError
from mailq.contrib.aio import AsyncQueue
from mailq.queue.states import ShownState
from mailq.testing.immediate import immediate
from mailq.testing.outbox import outbox

_MAIL: dict[str, Any] = {"sender": "shop@example.org", "to": ["ann@x.org"], "subject": "Welcome", "text": "Hello"}


class Bell:
    """Told of new mail, in some thread."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.rung = threading.Event()

    def __call__(self, _nexthops: Iterable[str]) -> None:
        self.threads.append(threading.current_thread().name)
        self.rung.set()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AsyncQueue]:
    async with AsyncQueue(url, settings=Settings(myhostname="shop.test"), **options) as queue:
        yield queue


@asynccontextmanager
async def engine_of(url: str) -> AsyncIterator[AsyncEngine]:
    driver = url.replace("sqlite://", "sqlite+aiosqlite://").replace("postgresql://", "postgresql+psycopg://")
    engine = create_async_engine(driver)
    try:
        yield engine
    finally:
        await engine.dispose()


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await story()

    asyncio.run(bounded())


async def queued(queue: AsyncQueue) -> int:
    counts = await queue.run(queue.queue.counts)
    return counts[ShownState.QUEUED]


def test_mail_is_queued_shown_found_and_explained(store_url: str) -> None:
    async def story() -> None:
        async with opened(store_url) as queue:
            first, second = await queue.send_many([Submission(**_MAIL), Submission(**_MAIL)])
            assert "shop@example.org" == (await queue.show(first)).sender
            assert {"ann@x.org": ShownState.QUEUED} == await queue.status(second)
            assert [second] == [one.queue_id for one in await queue.find(queue_ids=[second])]
            assert 1 == len(await queue.explain(first))
            with pytest.raises(UnknownMessageError):
                await queue.show("nothing")

    run(story)


def test_many_tasks_send_at_the_same_time(store_url: str) -> None:
    async def story() -> None:
        async with opened(store_url) as queue:
            ids = await asyncio.gather(*(queue.send(**_MAIL) for _ in range(40)))
            assert (40, 40) == (len(set(ids)), await queued(queue))

    run(story)


def test_a_session_rolled_back_sends_nothing_and_a_commit_rings_from_a_thread(store_url: str) -> None:
    async def story() -> None:
        bell = Bell()
        async with opened(store_url, ring=bell) as queue, engine_of(store_url) as engine:
            async with AsyncSession(engine) as session:
                await queue.send(**_MAIL, connection=session)
                await session.rollback()
                assert (0, False) == (await queued(queue), bell.rung.is_set())
                await queue.send(**_MAIL, connection=session)
                await session.commit()
            assert await asyncio.to_thread(bell.rung.wait, 10)
            assert 1 == await queued(queue)
            assert [True] == [name.startswith("mailq-aio") for name in bell.threads]

    run(story)


def test_a_connection_and_a_scoped_session_are_joined_too(store_url: str) -> None:
    async def story() -> None:
        async with opened(store_url) as queue, engine_of(store_url) as engine:
            async with engine.begin() as connection:
                await queue.send(**_MAIL, connection=connection)
            scoped = async_scoped_session(lambda: AsyncSession(engine), asyncio.current_task)
            await queue.send(**_MAIL, connection=scoped)
            await scoped.commit()
            await scoped.remove()
            assert 2 == await queued(queue)

    run(story)


def test_what_is_no_asynchronous_transaction_is_refused(sqlite_url: str) -> None:
    async def story() -> None:
        async with opened(sqlite_url) as queue:
            with pytest.raises(EnvelopeError, match="an AsyncConnection or AsyncSession of SQLAlchemy, not Engine"):
                await queue.send(**_MAIL, connection=sqlalchemy.create_engine("sqlite://"))  # type: ignore[arg-type]  # the test

    run(story)


def test_a_send_cancelled_before_its_turn_queues_nothing(sqlite_url: str) -> None:
    async def story() -> None:
        async with opened(sqlite_url, threads=1) as queue:
            go_on = threading.Event()
            blocked = asyncio.create_task(queue.run(go_on.wait, 10))
            waiting = asyncio.create_task(queue.send(**_MAIL))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            go_on.set()
            await blocked
            assert 0 == await queued(queue)

    run(story)


def test_a_send_cancelled_at_work_is_over_when_the_cancellation_comes_out(sqlite_url: str) -> None:
    """What a key queued is found under it again, so nothing is sent twice by sending again."""

    async def story() -> None:
        begun, go_on = threading.Event(), threading.Event()
        async with opened(sqlite_url) as queue:
            insert = queue.queue.store.insert

            def slow(messages: Any) -> list[str]:
                begun.set()
                go_on.wait(10)
                return insert(messages)

            queue.queue.store.insert = slow  # type: ignore[assignment,method-assign]  # to be cancelled in the middle
            at_work = asyncio.create_task(queue.send(**_MAIL, idempotency_key="order 1"))
            assert await asyncio.to_thread(begun.wait, 10)
            for _ in range(2):
                at_work.cancel()
                await asyncio.sleep(0)
            assert not at_work.done()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await at_work
            assert 1 == await queued(queue)
            await queue.send(**_MAIL, idempotency_key="order 1")
            assert 1 == await queued(queue)

    run(story)


def test_a_transaction_of_a_cancelled_task_is_rolled_back_as_a_whole(store_url: str) -> None:
    async def story() -> None:
        async with opened(store_url) as queue, engine_of(store_url) as engine:
            sent = asyncio.Event()

            async def order() -> None:
                async with engine.begin() as connection:
                    await queue.send(**_MAIL, connection=connection)
                    sent.set()
                    await asyncio.sleep(30)

            task = asyncio.create_task(order())
            await sent.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert 0 == await queued(queue)

    run(story)


def test_a_database_that_is_down_says_so() -> None:
    async def story() -> None:
        async with opened("postgresql://ann:s3cret@127.0.0.1:1/mail") as queue:
            with pytest.raises(DatabaseUnavailableError) as caught:
                await queue.send(**_MAIL)
            assert "s3cret" not in str(caught.value)

    run(story)


def test_waiting_ends_when_all_is_finished_or_time_is_up(sqlite_url: str) -> None:
    async def story() -> None:
        soon = timedelta(seconds=0.01)
        async with opened(sqlite_url) as queue:
            unsent = await queue.send(**_MAIL)
            with pytest.raises(TimeoutError, match=r"ann@x\.org waits"):
                await queue.wait(unsent, timeout=soon, look_every=soon)
            waiter = asyncio.create_task(queue.wait(unsent, look_every=soon))
            await queue.run(lambda: queue.queue.cancel(queue_ids=[unsent]))
            assert [ShownState.CANCELLED] == [one.state for one in (await waiter).recipients]
            with immediate():
                sent = await queue.send(**_MAIL)
            assert [ShownState.SENT] == [one.state for one in (await queue.wait(sent)).recipients]

    run(story)


def test_the_outbox_gets_what_tasks_send() -> None:
    async def story() -> None:
        async with opened("sqlite:////nowhere/queue.db") as queue, engine_of("sqlite://") as engine:
            await queue.send(**_MAIL)
            async with AsyncSession(engine) as session:
                await queue.send(**_MAIL | {"to": ["bob@x.org"]}, connection=session)

    with outbox() as box:
        run(story)
        assert [("ann@x.org",)] == [one.recipients for one in box]
