"""Answers are remembered until they end, and no longer."""

import pytest

from mailq.errors import LookupFailedError, LookupKind
from mailq.routing import remembered
from mailq.routing.answer import Answer
from mailq.routing.remembered import Remembered


class Name:
    """A name server by hand, at a time by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.memory = Remembered(lambda: self.now)
        self.source = object()

    def ask(self, question: str = "dest.test", *, ends_at: float = 1010.0) -> int:
        """Return which answer this is."""

        def answer() -> Answer[int]:
            self.asked += 1
            return Answer((self.asked,), ends_at=ends_at)

        return self.memory.get(question, self.source, answer).records[0]


def test_an_answer_holds_until_it_ends():
    server = Name()
    assert [1, 1] == [server.ask(), server.ask()]
    server.now = 1010.0
    assert [2, 3] == [server.ask(), server.ask()]


def test_an_answer_that_ends_at_once_is_not_remembered():
    server = Name()
    assert [1, 2] == [server.ask(ends_at=1000.0), server.ask(ends_at=0.0)]


def test_what_another_source_said_is_forgotten():
    server = Name()
    server.ask()
    before, server.source = server.source, object()
    assert 2 == server.ask()
    server.source = before
    assert 3 == server.ask()


def test_a_failure_is_asked_for_again():
    server = Name()

    def fail() -> Answer[int]:
        raise LookupFailedError(LookupKind.RETRY, "later")

    for _ in range(2):
        with pytest.raises(LookupFailedError, match="later"):
            server.memory.get("dest.test", server.source, fail)
    assert 1 == server.ask()


def test_the_oldest_answers_make_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembered, "MOST_ANSWERS", 2)
    server = Name()
    assert [1, 2, 3] == [server.ask(name) for name in ("a", "b", "c")]
    assert [3, 2, 4] == [server.ask(name) for name in ("c", "b", "a")]
