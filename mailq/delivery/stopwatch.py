"""How long each part of an attempt took."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from mailq.delivery.ports import Clock


@contextmanager
def timed(seconds: MutableMapping[str, float], part: str, clock: Clock) -> Iterator[None]:
    """Add the time of a ``with`` block to *part*, also where the block raises."""
    began = clock.monotonic()
    try:
        yield
    finally:
        seconds[part] = seconds.get(part, 0.0) + clock.monotonic() - began
