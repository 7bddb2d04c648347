from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from typing import BinaryIO

from mailq.worker.read_ahead import MOST_BYTES, MOST_MESSAGES, ReadAhead


class Shelf:
    """Contents in memory that count how they are asked for."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[list[str]] = []
        self.opened: list[str] = []

    def open(self, queue_id: str) -> AbstractContextManager[BinaryIO]:
        self.opened.append(queue_id)
        return nullcontext(BytesIO(self.contents[queue_id]))

    def read_small(self, queue_ids: Collection[str]) -> dict[str, bytes]:
        self.asked.append(list(queue_ids))
        return {one: self.contents[one] for one in queue_ids if one in self.contents}


def read(bodies: ReadAhead, queue_id: str) -> bytes:
    with bodies.open(queue_id) as content:
        return content.read()


def test_small_contents_come_with_one_question() -> None:
    shelf = Shelf({name: name.encode() for name in "abc"})
    bodies = ReadAhead(shelf, {"a": 1, "b": 1, "c": 1})
    assert [b"a", b"b", b"c"] == [read(bodies, name) for name in "abc"]
    assert ([["a", "b", "c"]], []) == (shelf.asked, shelf.opened)


def test_no_more_is_held_than_fits() -> None:
    half = MOST_BYTES // 2
    shelf = Shelf({name: name.encode() for name in "abc"})
    bodies = ReadAhead(shelf, {"a": half, "b": half, "c": 1})
    assert [b"a", b"b", b"c"] == [read(bodies, name) for name in "abc"]
    assert [["a", "b"], ["c"]] == shelf.asked


def test_a_batch_of_many_is_read_in_bounded_portions() -> None:
    names = [f"q{number}" for number in range(MOST_MESSAGES + 1)]
    shelf = Shelf(dict.fromkeys(names, b"x"))
    bodies = ReadAhead(shelf, dict.fromkeys(names, 1))
    assert [b"x"] * len(names) == [read(bodies, name) for name in names]
    assert [names[:-1], names[-1:]] == shelf.asked


def test_a_large_content_is_read_by_itself() -> None:
    shelf = Shelf({"a": b"large", "b": b"small"})
    bodies = ReadAhead(shelf, {"a": MOST_BYTES + 1, "b": 1})
    assert [b"large", b"small"] == [read(bodies, name) for name in "ab"]
    assert ([["b"]], ["a"]) == (shelf.asked, shelf.opened)


def test_a_content_can_be_read_again_for_other_recipients() -> None:
    shelf = Shelf({"a": b"one", "b": b"two"})
    bodies = ReadAhead(shelf, {"a": 1, "b": 1})
    assert [b"one", b"one", b"two"] == [read(bodies, name) for name in "aab"]
    assert [] == shelf.opened


def test_what_is_no_single_row_is_opened_as_ever() -> None:
    shelf = Shelf({"a": b"object"})
    shelf.read_small = lambda _: {}  # type: ignore[method-assign,assignment]  # as if the content lay elsewhere
    assert b"object" == read(ReadAhead(shelf, {"a": 1}), "a")
    assert ["a"] == shelf.opened


def test_what_came_with_the_lease_is_not_asked_for() -> None:
    shelf = Shelf({name: name.encode() for name in "abcd"})
    bodies = ReadAhead(shelf, {"a": 1, "b": MOST_BYTES + 1, "c": 1, "d": 1}, {"a": b"held a", "c": b"held c"})
    assert [b"held a", b"b", b"held c", b"d"] == [read(bodies, name) for name in "abcd"]
    assert ([["d"]], ["b"]) == (shelf.asked, shelf.opened)
    assert b"a" == read(bodies, "a")
