"""Threads share the places that memory is taken from, and seldom wait for a collection."""

import gc
import subprocess
import sys

import pytest

from mailq.worker.memory import ARENAS, YOUNG_OBJECTS, collect_rarely

# The count of them is what the C library itself tells.
_COUNT = """
import ctypes, sys, threading
from mailq.worker.memory import share_arenas

if {shared}:
    share_arenas()
gate = threading.Barrier(33)
kept = []

def take():
    gate.wait()
    kept.append(bytearray(100_000))
    gate.wait()

threads = [threading.Thread(target=take) for _ in range(32)]
for one in threads:
    one.start()
gate.wait()
gate.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
told = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
for one in threads:
    one.join()
"""


@pytest.mark.parametrize("shared", [True, False])
def test_a_worker_takes_memory_from_a_few_places_however_many_threads_it_has(*, shared: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT.format(shared=shared)], check=True, capture_output=True, text=True, timeout=60
    )
    assert shared is (done.stdout.count("<heap nr=") <= ARENAS)


def test_the_youngest_objects_are_looked_at_when_there_are_many() -> None:
    before, looks = gc.get_threshold(), 0

    def note(phase: str, _info: dict[str, int]) -> None:
        nonlocal looks
        looks += phase == "start"

    collect_rarely()
    gc.collect()
    gc.callbacks.append(note)
    try:
        few: list[list[int]] = [[] for _ in range(YOUNG_OBJECTS // 2)]
        assert 0 == looks
        many: list[list[int]] = [[] for _ in range(YOUNG_OBJECTS)]
        assert (1, len(few) * 2) == (looks, len(many))
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
