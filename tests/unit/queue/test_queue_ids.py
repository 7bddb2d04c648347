"""Queue ids: short, safe to type, sorted by time."""

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mailq.queue.queue_ids import RANDOM_BITS, queue_id

INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(3000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is given beside
RANDOM = st.integers(0, 2**RANDOM_BITS - 1)


def test_an_id_spells_time_and_chance() -> None:
    assert "000000000Z000000000Z" == queue_id(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=31), 31)


@given(now=INSTANTS, bits=RANDOM)
def test_an_id_has_twenty_characters_that_nobody_mistakes(now: datetime, bits: int) -> None:
    assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{20}", queue_id(now, bits))


@given(now=INSTANTS, first=RANDOM, second=RANDOM)
def test_a_later_id_sorts_after_an_earlier_one(now: datetime, first: int, second: int) -> None:
    assert queue_id(now, first) < queue_id(now + timedelta(milliseconds=2), second)


@given(now=INSTANTS, first=RANDOM, second=RANDOM)
def test_chance_tells_ids_of_one_moment_apart(now: datetime, first: int, second: int) -> None:
    assert (first == second) == (queue_id(now, first) == queue_id(now, second))
