"""Which gate is the tightest, from how gates look, is what an admission says.

Source: smtp-delivery Q-20, Q-35, Q-40
"""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from mailq.limits import operations
from mailq.limits.books import Book
from mailq.limits.buckets import Amounts, Rate, Unit
from mailq.limits.gates import ZERO, Bar, Gate, GateView
from mailq.limits.tight import most_sessions, refusal, tightest_of
from mailq.limits.window import State, Window, WindowRule

SECOND = 1_000_000
NOW = 1_000 * SECOND
RATES = (
    Rate(unit=Unit.SESSIONS, count=2, burst=3),
    Rate(unit=Unit.SESSIONS, count=10, interval=timedelta(minutes=1)),
    Rate(unit=Unit.MESSAGES, count=7, burst=2),
)

gates = st.builds(
    Gate,
    key=st.just(""),
    sessions=st.integers(0, 6),
    window=st.sampled_from([None, WindowRule()]),
    rates=st.lists(st.sampled_from(RATES), unique=True).map(tuple),
    rate_delay=st.sampled_from([ZERO, ZERO, timedelta(seconds=2)]),
    kept_free=st.integers(0, 2),
    urgent=st.booleans(),
)
windows = st.builds(
    Window,
    size=st.integers(1, 6),
    state=st.sampled_from(State),
    seen_at=st.just(NOW - SECOND),
    until=st.integers(NOW - SECOND, NOW + 3 * SECOND),
    status=st.just("4.4.1"),
    reason=st.just("no"),
)
books = st.builds(
    Book,
    slots=st.dictionaries(st.sampled_from(["a/1", "a/2", "b/1", "b/2"]), st.just(NOW + SECOND)),
    window=st.none() | windows,
    buckets=st.fixed_dictionaries({rate.name: st.floats(NOW - SECOND, NOW + 3 * SECOND) for rate in RATES}),
)
wants = st.builds(Amounts, sessions=st.integers(0, 4), messages=st.integers(0, 4))


@given(st.lists(st.tuples(gates, books), min_size=1, max_size=3), wants)
def test_what_is_told_of_gates_is_what_admission_answers(drawn: list[tuple[Gate, Book]], want: Amounts) -> None:
    passed = [_named(gate, str(number)) for number, (gate, _) in enumerate(drawn)]
    kept = {str(number): book for number, (_, book) in enumerate(drawn)}
    views = [kept[gate.key].look(gate, now=NOW) for gate in passed]
    place, told = tightest_of(passed, views, want)
    answer = operations.tightest([kept[gate.key].shut_to_new(gate, "new", want, now=NOW) for gate in passed])
    if answer is None or told is None:
        assert answer is told
        return
    assert passed[place].key == told.key
    assert answer.bar == told.bar
    if answer.bar is not Bar.RATE:
        assert answer == told
    assert abs((answer.wait_seconds or 0) - (told.wait_seconds or 0)) < 1e-5


def test_where_nothing_is_in_the_way_the_one_with_least_room_is_the_tightest() -> None:
    passed = [Gate(key="a", sessions=5), Gate(key="b", sessions=3), Gate(key="c")]
    assert (1, None) == tightest_of(passed, [_view(gate, busy=1) for gate in passed])


def test_what_ordinary_mail_may_use_is_less_where_sessions_are_kept_free() -> None:
    gate = Gate(key="a", sessions=10, kept_free=2)
    assert [8, 0] == [most_sessions(gate, _view(gate)), most_sessions(Gate(key="b"), _view(Gate(key="b")))]
    full = refusal(gate, _view(gate, busy=8))
    assert full is not None
    assert (Bar.FULL, 8, None) == (full.bar, full.busy, full.wait_seconds)


def _named(gate: Gate, key: str) -> Gate:
    return Gate(
        key=key,
        sessions=gate.sessions,
        window=gate.window,
        rates=gate.rates,
        rate_delay=gate.rate_delay,
        kept_free=gate.kept_free,
        urgent=gate.urgent,
    )


def _view(gate: Gate, *, busy: int = 0) -> GateView:
    return GateView(
        key=gate.key,
        limit=gate.limit,
        window=None,
        cohorts=0.0,
        busy=busy,
        holders=(),
        tokens=(),
        state=State.READY,
        ends_in=None,
    )
