"""How many rings wait at the broker."""

import contextlib
from typing import Any, Final

from mailq.broker import DELIVER_QUEUE, make_celery
from mailq.errors import BrokerUnavailableError
from mailq.settings import Settings

_BROKER_SECONDS: Final = 2.0


class BrokerLook:
    """Counts the rings that wait, over one kept connection; for one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._app = make_celery(settings)
        self._connection: Any = None
        self._channel: Any = None

    def __call__(self) -> int:
        """Return how many wait.

        Raises:
            BrokerUnavailableError: The broker does not say.
        """
        try:
            if self._channel is None:
                self._connection = self._app.connection_for_write(connect_timeout=_BROKER_SECONDS)
                self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
                self._channel = self._connection.default_channel
                self._app.amqp.queues[DELIVER_QUEUE].bind(self._channel).declare()
            answer = self._channel.queue_declare(queue=DELIVER_QUEUE, durable=True, auto_delete=False)
        except Exception as error:
            # Transports raise types of their own.
            self.close()
            raise BrokerUnavailableError(f"{type(error).__name__}: {error}") from error
        return int(answer.message_count)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()
