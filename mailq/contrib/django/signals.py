"""What a Django project can listen to, named as other mail packages name it.

In the process that sends:

    pre_send          ``message``: may change it, or keep it back by raising :class:`CancelSendError`
    post_send         ``message``, ``queue_id``: written, in a transaction that may still be rolled back
    message_queued    ``message``, ``queue_id``: committed

In a worker that ``manage.py`` started, each with ``event``, a :class:`mailq.worker.listener.OutcomeEvent`:

    recipient_delivered, recipient_deferred, recipient_bounced    what became of one recipient
    tracking          each of these and whatever else becomes of a recipient

Signals of a worker come after the commit, in the thread that delivers: be
quick. They tell what happens; a worker that dies at the wrong moment sends
none. What is true stands in the queue, see :meth:`mailq.api.Queue.status`.
"""

from typing import Any, Final

from django.db import close_old_connections
from django.dispatch import Signal

pre_send: Final = Signal()
post_send: Final = Signal()
message_queued: Final = Signal()
recipient_delivered: Final = Signal()
recipient_deferred: Final = Signal()
recipient_bounced: Final = Signal()
tracking: Final = Signal()

_BY_WORD: Final = {
    "sent": recipient_delivered,
    "deferred": recipient_deferred,
    "bounced": recipient_bounced,
    "expired": recipient_bounced,
}


class CancelSendError(Exception):
    """Raised by a receiver of ``pre_send``: the message is not sent, and does not count as sent."""


def tell(event: Any) -> None:
    """Send the signals of one outcome; a worker of ``manage.py`` has this as ``on_outcome``."""
    wanted = [signal for signal in (_BY_WORD.get(event.word), tracking) if signal is not None]
    if not any(signal.has_listeners(tell) for signal in wanted):
        return
    # No request begins or ends here, which is when Django lets go of connections that are broken or too old.
    close_old_connections()
    try:
        for signal in wanted:
            signal.send_robust(sender=tell, event=event)
    finally:
        close_old_connections()
