"""Publishing rings: the one connection to the broker that a thread keeps for it.

Nothing is published while very many rings wait unanswered: they would only
fill the broker's memory while no worker runs.

Source: celery.md §2.8, §2.12
"""

import time
from collections.abc import Callable
from typing import Any, Final

from celery import Celery
from kombu import Connection

from mailq.broker import DELIVER_QUEUE, DELIVER_TASK, ORDINARY_RING, RING_VERSION, URGENT_RING

MOST_UNANSWERED: Final = 2000
_DEPTH_CHECK_SECONDS: Final = 1.0


class Publisher:
    """Publishes rings over one kept connection; for one thread.

    Args:
        app: Its configuration names the broker and the queues.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, app: Celery, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._connection: Connection | None = None
        self._producer: Any = None
        self._depth_checked_at = float("-inf")
        self._crowded = False

    def publish(self, nexthop: str, *, urgent: bool = False) -> bool:
        """Publish one ring; False when too many wait unanswered already. Raises what the transport raises."""
        try:
            return self._publish(nexthop, urgent=urgent)
        except Exception:
            # An idle connection may have been closed by the broker; that costs one retry, not a ring.
            fresh = self._connection is None
            self.disconnect()
            if fresh:
                raise
        try:
            return self._publish(nexthop, urgent=urgent)
        except Exception:
            self.disconnect()
            raise

    def connect(self) -> None:
        """Connect, unless there is a connection, so that the first ring need not. Raises what the transport raises."""
        if self._producer is None:
            connection = self._app.connection_for_write()
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)
            self._connection = connection

    def disconnect(self) -> None:
        """Forget the connection."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _publish(self, nexthop: str, *, urgent: bool) -> bool:
        self.connect()
        if not urgent and self._is_crowded():
            return False
        self._app.send_task(
            DELIVER_TASK,
            kwargs={"nexthop": nexthop, "v": RING_VERSION},
            producer=self._producer,
            queue=DELIVER_QUEUE,
            priority=URGENT_RING if urgent else ORDINARY_RING,
            retry=False,
            ignore_result=True,
            argsrepr=nexthop,
            kwargsrepr="",
        )
        return True

    def _is_crowded(self) -> bool:
        now = self._monotonic()
        if now - self._depth_checked_at >= _DEPTH_CHECK_SECONDS:
            channel = self._producer.channel
            self._app.amqp.queues[DELIVER_QUEUE].bind(channel).declare()
            answer = channel.queue_declare(queue=DELIVER_QUEUE, durable=True, auto_delete=False)
            self._crowded = answer.message_count >= MOST_UNANSWERED
            self._depth_checked_at = now
        return self._crowded
