"""The Celery application as both ends of the broker see it: names, queues and configuration.

The broker is a doorbell: a message on it only says that a nexthop has mail
due. So messages are acknowledged before they are worked on, carry no state,
have no result, no ETA and no retry: SQL recovers what the broker loses.

Nothing here connects: Celery opens its connections on first use.

Source: celery.md §0, §2.3, §2.5, §2.7, §2.10.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from celery import Celery
from kombu import Exchange, Queue

from mailq.settings import Settings

DELIVER_QUEUE: Final = "mailq.deliver"
MAINTENANCE_QUEUE: Final = "mailq.maint"
DELIVER_TASK: Final = "mailq.deliver"
DISPATCH_TASK: Final = "mailq.dispatch"

RING_VERSION: Final = 1
"""Version of the payload; a worker ignores a version it does not know, and the dispatcher rings again."""

URGENT_RING: Final = 0
"""Priority of a ring for urgent mail. Redis hands out the smallest number first; other brokers take turns."""
ORDINARY_RING: Final = 3
"""Priority of all other rings."""

_REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "redis+socket", "unix"})
_CONNECT_SECONDS: Final = 2.0
_SOCKET_SECONDS: Final = 5.0
# The in-memory transport looks for messages this often; its own pause of a second looks like a hang.
_MEMORY_POLL_SECONDS: Final = 0.05


def is_redis(broker_url: str) -> bool:
    """Tell whether *broker_url* names a Redis server."""
    return urlsplit(broker_url).scheme in _REDIS_SCHEMES


def is_memory(broker_url: str) -> bool:
    """Tell whether *broker_url* names the broker inside the process."""
    return urlsplit(broker_url).scheme == "memory"


def transport_options(settings: Settings) -> Mapping[str, Any]:
    """Return what kombu's transport is told; a Redis that says nothing must never hold anybody up for good."""
    if is_memory(settings.broker_url):
        return {"polling_interval": _MEMORY_POLL_SECONDS}
    if not is_redis(settings.broker_url):
        return {}
    return {
        "socket_timeout": _SOCKET_SECONDS,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_connections": 200,
        "visibility_timeout": 3600,
        "queue_order_strategy": "priority",
        "global_keyprefix": settings.key_prefix,
    }


def celery_config(settings: Settings) -> Mapping[str, Any]:
    """Return the Celery configuration for *settings*. Source: celery.md §0."""
    exchange = Exchange("mailq", type="direct")
    return {
        # Without a host kombu warns at every start, though nothing is connected to.
        "broker_url": "memory://localhost//" if is_memory(settings.broker_url) else settings.broker_url,
        "broker_transport_options": transport_options(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_queues": tuple(Queue(name, exchange, routing_key=name) for name in (DELIVER_QUEUE, MAINTENANCE_QUEUE)),
        "task_default_queue": DELIVER_QUEUE,
        "task_default_exchange": "mailq",
        "task_default_routing_key": DELIVER_QUEUE,
        "task_routes": {DISPATCH_TASK: {"queue": MAINTENANCE_QUEUE, "routing_key": MAINTENANCE_QUEUE}},
        "task_create_missing_queues": False,
        "task_acks_late": False,
        "task_ignore_result": True,
        "result_backend": None,
        "task_publish_retry": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        "worker_pool": "threads",
        "worker_concurrency": settings.worker_concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": is_redis(settings.broker_url),
        "worker_send_task_events": True,
        # Flower shows a task from when a worker has received it; to tell of its sending costs as much as to send it.
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        # Sessions that were being held when the broker went away go on: cancelling them would only repeat mail.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def make_celery(settings: Settings) -> Celery:
    """Build an application that can publish rings; it knows no tasks and does not become Celery's current one."""
    # The host's own Celery application must stay what it was: celery.md §6, pitfall 34.
    app = Celery("mailq", set_as_current=False)
    app.conf.update(celery_config(settings))
    return app
