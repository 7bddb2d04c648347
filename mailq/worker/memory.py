"""What keeps a process of hundreds of threads small.

Source: mallopt(3)
"""

import ctypes
import gc
from contextlib import suppress
from typing import Final

ARENAS: Final = 2
_M_ARENA_MAX: Final = -8


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
