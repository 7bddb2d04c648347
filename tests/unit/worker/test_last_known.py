"""Whether nexthops did well, where several tasks tell of one at a time."""

import pytest

from mailq.worker.runtime import last_known


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({}, []),
        ({"a": None}, [("a", None), ("a", None)]),
        ({"a": True, "b": False}, [("a", True), ("b", False)]),
        ({"a": False}, [("a", True), ("a", False)]),
        ({"a": True}, [("a", True), ("a", None)]),
        ({"a": True}, [("a", None), ("a", True)]),
    ],
)
def test_what_was_told_last_holds_and_who_knows_nothing_takes_nothing_back(
    expected: dict[str, bool | None], told: list[tuple[str, bool | None]]
) -> None:
    assert expected == last_known(told)
