"""What only a collection frees, since it holds itself."""

import gc
from collections.abc import Callable


def garbage_of(work: Callable[[], object]) -> set[str]:
    """Return the names of our types of which *work* leaves something behind."""
    gc.collect()
    gc.disable()
    try:
        work()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return {type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("mailq.")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
