"""The conformance page says what the tests say, and leaves no behaviour out."""

import pytest

from scripts import conformance


def test_every_behaviour_is_proved_or_a_deliberate_difference():
    assert [] == conformance.blank_rows()


def test_the_page_is_up_to_date():
    assert conformance.page() == conformance.PAGE.read_text(encoding="utf-8"), "run: make docs"


def test_every_row_that_a_test_names_exists():
    chapters = set("DCARSXTPBQ")
    named = {row for row in [*conformance.proofs(), *conformance.differences()] if row[0] in chapters}
    assert set() == named - conformance.rows().keys()


def test_the_test_that_bears_out_a_difference_exists():
    tests = {proof.function for proof in dict(conformance.tests())}
    assert set() == set(conformance.tests_of_differences()) - tests


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1.01: A-36 C-30.", ["A-36", "C-30"]),
        ("X-33 to X-35, C-9", ["X-33", "X-34", "X-35"]),
        ("C-99 to 101", ["C-99", "C-100", "C-101"]),
        ("RFC 7505, W-30, UTF-8", []),
        ("P-43 to P-45, P-44c.", ["P-43", "P-44", "P-45", "P-44c"]),
    ],
)
def test_rows_are_found_in_a_docstring(text, rows):
    assert rows == list(conformance.named_rows(text))
