"""A hook that ends the whole process over one message, as a crash in a library would."""

import os

from mailq.delivery.hooks import Hooks

POISON = b"Subject: poison"


def _header_filter(field: bytes) -> bytes:
    if field.startswith(POISON):
        os._exit(70)
    return field


hooks = Hooks(header_filter=_header_filter)
