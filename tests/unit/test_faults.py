"""A kept traceback says where, and nothing that was in the mail."""

import pytest

from mailq.errors import HookFailedError
from mailq.faults import MOST_CHARACTERS, describe_fault


def fault_of(function: object) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any will do
        function()  # type: ignore[operator]  # a callable
    return describe_fault(caught.value)


def stumble() -> None:
    secret = "hunter2"
    raise ValueError(f"cannot parse 'Subject: {secret}'")


def fail_for_a_reason() -> None:
    try:
        stumble()
    except ValueError as error:
        raise HookFailedError("header_filter") from error


def test_a_fault_names_file_line_function_and_error() -> None:
    found = fault_of(stumble)
    assert "test_faults.py" in found
    assert "in stumble" in found
    assert "builtins.ValueError" in found


def test_a_fault_quotes_neither_the_message_nor_a_secret() -> None:
    found = fault_of(stumble)
    assert "hunter2" not in found
    assert "Subject" not in found


def test_a_fault_shows_the_cause_first_and_what_came_of_it_last() -> None:
    found = fault_of(fail_for_a_reason).splitlines()
    assert "mailq.errors.HookFailedError: header_filter" == found[-1]
    (cause,) = [number for number, line in enumerate(found) if line.startswith("builtins.ValueError")]
    assert cause < len(found) - 1


def test_the_words_of_the_operating_system_are_kept() -> None:
    assert "No such file or directory" in fault_of(lambda: open("/nowhere/at/all"))  # noqa: PTH123, SIM115 - the error is what counts


def test_a_fault_without_end_is_cut_at_its_beginning() -> None:
    def descend() -> None:
        descend()

    found = fault_of(descend)
    assert len(found) <= MOST_CHARACTERS
    assert "RecursionError" in found
