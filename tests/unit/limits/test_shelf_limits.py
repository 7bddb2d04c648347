"""What a database keeps of a book is the book."""

from hypothesis import given
from hypothesis import strategies as st

from mailq.limits.books import Book
from mailq.limits.shelf_limits import from_text, to_text
from mailq.limits.window import State, Window

INSTANTS = st.integers(0, 2**52)
WINDOWS = st.builds(
    Window,
    size=st.integers(1, 1000),
    success=st.floats(0, 2),
    failure=st.floats(-1, 2),
    cohorts=st.floats(0, 10),
    state=st.sampled_from(State),
    seen_at=INSTANTS,
    until=INSTANTS,
    status=st.text(max_size=9),
    reason=st.text(max_size=50),
)
BOOKS = st.builds(
    Book,
    slots=st.dictionaries(st.text(min_size=1, max_size=30), INSTANTS, max_size=5),
    window=st.none() | WINDOWS,
    buckets=st.dictionaries(st.text(min_size=1, max_size=30), st.floats(0, 2**52), max_size=3),
)


@given(BOOKS)
def test_a_book_comes_back_as_it_was_put_away(book: Book) -> None:
    assert book == from_text(to_text(book))


def test_no_text_is_an_empty_book() -> None:
    assert Book() == from_text("")
