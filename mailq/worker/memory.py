"""What keeps a process of hundreds of threads small, and lets it go on.

Source: mallopt(3)
"""

import ctypes
import gc
from contextlib import suppress
from typing import Final

ARENAS: Final = 2
YOUNG_OBJECTS: Final = 20_000
"""So many more are made than have gone before the youngest are looked at."""
_M_ARENA_MAX: Final = -8
# As they come: so many looks at the youngest before those that stayed are looked at, and likewise with those.
_LOOKS: Final = (10, 10)


def collect_rarely() -> None:
    """Have collections look for what holds itself less often: each stops every session meanwhile.

    What a message or a batch is sent by goes when it is done, since none of it holds itself. And what hundreds of
    sessions have in hand lasts as long as their servers take, so looking at the youngest objects often finds nothing.
    """
    gc.set_threshold(YOUNG_OBJECTS, *_LOOKS)


def keep_what_is_loaded() -> None:
    """Have no collection look at it again: that stops every session meanwhile, and has each process copy it."""
    gc.collect()
    gc.freeze()


def share_arenas() -> None:
    """Have all threads take memory from the same few places, where the C library is glibc; before they begin.

    It would give each of them a place of its own, up to eight for each processor, and what was once used in one stays
    there. That spares threads that run at the same time from waiting for each other; ours run one at a time.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
