"""mailq in Django: an app and an e-mail backend whose mail is part of the application's own transaction.

``INSTALLED_APPS`` names this package, and ``EMAIL_BACKEND`` (``MAILERS`` since
Django 6.1) names :class:`EmailBackend` in it. The tables lie in a database of
Django's; ``manage.py migrate`` makes them. Everything is configured in one
setting, the dictionary ``MAILQ``.

Names are imported when they are first used, since Django imports this package
before its apps are ready.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailq.contrib.django.backend import EmailBackend
    from mailq.contrib.django.queues import get_queue
    from mailq.contrib.django.signals import (
        CancelSendError,
        message_queued,
        post_send,
        pre_send,
        recipient_bounced,
        recipient_deferred,
        recipient_delivered,
        tracking,
    )

__all__ = [
    "CancelSendError",
    "EmailBackend",
    "get_queue",
    "message_queued",
    "post_send",
    "pre_send",
    "recipient_bounced",
    "recipient_deferred",
    "recipient_delivered",
    "tracking",
]

_HOMES = {"EmailBackend": "backend", "get_queue": "queues"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'signals')}"), name)
