"""An outbound mail queue for Python: the public names, sorted; nothing else.

Names are imported when they are first used, so that ``import mailq`` costs
an application nothing. Everything not named here may change without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailq.api import Queue, Submission, enqueue
    from mailq.envelope import Notify, Ret
    from mailq.errors import (
        AddressSyntaxError,
        BrokerUnavailableError,
        ConfigError,
        ContentError,
        DatabaseUnavailableError,
        EnvelopeError,
        IdempotencyConflictError,
        InfrastructureError,
        MailqError,
        RefusedError,
        SchemaError,
        SettingError,
        UnknownMessageError,
    )
    from mailq.settings import Settings

__all__ = [
    "AddressSyntaxError",
    "BrokerUnavailableError",
    "ConfigError",
    "ContentError",
    "DatabaseUnavailableError",
    "EnvelopeError",
    "IdempotencyConflictError",
    "InfrastructureError",
    "MailqError",
    "Notify",
    "Queue",
    "RefusedError",
    "Ret",
    "SchemaError",
    "SettingError",
    "Settings",
    "Submission",
    "UnknownMessageError",
    "__version__",
    "enqueue",
]

__version__ = "0.1.0"

_HOMES = {
    "Notify": "mailq.envelope",
    "Queue": "mailq.api",
    "Ret": "mailq.envelope",
    "Settings": "mailq.settings",
    "Submission": "mailq.api",
    "enqueue": "mailq.api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mailq' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "mailq.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
