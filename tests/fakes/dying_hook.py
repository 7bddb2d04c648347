"""A hook that ends the whole process now and then, between a server's answer and the record of it."""

import os
import random

from mailq.delivery.hooks import Hooks
from mailq.status import EnhancedStatus, Severity

_SHARE = 0.015


def _status_filter(status: EnhancedStatus, text: str) -> tuple[EnhancedStatus, str]:
    if status.severity is Severity.SUCCESS and random.random() < _SHARE:
        os._exit(70)
    return status, text


hooks = Hooks(status_filter=_status_filter)
