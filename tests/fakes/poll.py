"""Waiting for something to become true, with an end."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], *, within_seconds: float = 10.0) -> T:
    """Return the first true answer of *look*."""
    deadline = time.monotonic() + within_seconds
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {answer!r} after {within_seconds} s")
        time.sleep(0.01)
    return answer
