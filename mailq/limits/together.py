"""Calls of many threads carried out together, by whichever of them came first.

Where hundreds of threads each make a call of their own, they queue for the same
few connections, and each of them pays for a round trip. Here the first one makes
its call at once; those who come meanwhile are answered together by the next one.
A thread alone pays nothing for it.

Invariant: each caller gets the answer to its own call, or the error of the step that carried it out.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

_Call = TypeVar("_Call")
_Answer = TypeVar("_Answer")
_LOOK_SECONDS: Final = 1.0


class _Asked(Generic[_Call, _Answer]):
    """A call until it is answered."""

    __slots__ = ("answer", "call", "error", "leads", "over", "turn")

    def __init__(self, call: _Call) -> None:
        self.call = call
        self.answer: _Answer
        self.error: BaseException | None = None
        self.leads = self.over = False
        self.turn = threading.Event()


class Together(Generic[_Call, _Answer]):
    """Carries calls out; safe to use from many threads.

    Args:
        carry_out: Returns the answers to some calls, in their order, within a bounded time.
        most: So many calls at a time.
    """

    def __init__(self, carry_out: Callable[[Sequence[_Call]], Sequence[_Answer]], *, most: int) -> None:
        self._carry_out = carry_out
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[_Asked[_Call, _Answer]] = deque()
        self._is_led = False

    def __call__(self, call: _Call) -> _Answer:
        """Return the answer to *call*; raises what carrying it out raises."""
        asked: _Asked[_Call, _Answer] = _Asked(call)
        with self._lock:
            self._waiting.append(asked)
            asked.leads, self._is_led = not self._is_led, True
        while not (asked.leads or asked.over):
            asked.turn.wait(_LOOK_SECONDS)
        if not asked.over:
            self._lead()
        if asked.error is not None:
            raise asked.error
        return asked.answer

    def _lead(self) -> None:
        """Carry out what waits, the leader's own call first, and let the next one lead."""
        with self._lock:
            together = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
        try:
            answers = self._carry_out([one.call for one in together])
            for one, answer in zip(together, answers, strict=True):
                one.answer = answer
        except BaseException as error:  # noqa: BLE001 - each of the callers raises it, this one among them
            for one in together:
                one.error = error
        with self._lock:
            for one in together:
                one.over = True
                one.turn.set()
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].turn.set()
