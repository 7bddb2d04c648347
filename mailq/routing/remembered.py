"""What was made of answers of DNS, until they end.

The stub resolver remembers answers as well, but to find them there and to take them apart costs a tenth of a
millisecond for each name, and a message to a large site asks for a dozen.

Source: RFC 1035 §3.2.1, RFC 2308.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

from mailq.routing.answer import Answer

MOST_ANSWERS: Final = 10_000

RecordT = TypeVar("RecordT")


class Remembered:
    """Answers by question; safe to use from many threads.

    Args:
        now: The machine's time, which answers end by.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._source: object = None
        self._answers: dict[Hashable, Answer[Any]] = {}

    def get(self, question: Hashable, source: object, ask: Callable[[], Answer[RecordT]]) -> Answer[RecordT]:
        """Return the answer to *question*, from memory where it has not ended.

        Args:
            question: Whatever tells it from others.
            source: Who would be asked; what another had answered is forgotten.
            ask: Asks. What it raises is not remembered.
        """
        if source is self._source:
            known = self._answers.get(question)
            if known is not None and self._now() < known.ends_at:
                return known
        answer = ask()
        if self._now() < answer.ends_at:
            with self._lock:
                self._keep(question, source, answer)
        return answer

    def _keep(self, question: Hashable, source: object, answer: Answer[Any]) -> None:
        if source is not self._source:
            self._source, self._answers = source, {}
        self._answers.pop(question, None)
        if len(self._answers) >= MOST_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[question] = answer
