"""The fixtures that pytest finds by itself where mailq is installed.

Every user of pytest has this module loaded, so it imports nothing before a
test asks for a fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mailq.testing.outbox import Outbox
    from mailq.testing.sink import Sink


@pytest.fixture
def mailq() -> "Iterator[Outbox]":
    """Keep what the test queues in memory of the test's own, deliver nothing: see :mod:`mailq.testing.outbox`."""
    from mailq.testing.outbox import outbox  # noqa: PLC0415 - as the module says

    with outbox() as box:
        yield box


@pytest.fixture
def mailq_immediate() -> "Iterator[Sink]":
    """Deliver what the test queues at once, to a mail server on loopback: see :mod:`mailq.testing.immediate`."""
    from mailq.testing.immediate import immediate  # noqa: PLC0415 - as the module says

    with immediate() as sink:
        yield sink
