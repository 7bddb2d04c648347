"""Whatever happens, shared limits do step by step what the rows say: on every implementation."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from mailq.limits.buckets import Amounts, Rate, Unit
from mailq.limits.gates import Admitted, Feedback, Gate, Refused, Verdict
from mailq.limits.local_limits import LocalLimits
from mailq.limits.port import Limits
from mailq.limits.redis_limits import RedisLimits
from mailq.limits.shelf_limits import ShelfLimits
from mailq.limits.window import FeedbackRule, WindowRule
from mailq.queue.limit_books import StoredBooks
from mailq.queue.store import Store
from mailq.testing.redisd import RedisServer
from tests.fakes.limits_model import LimitsModel, ModelKey, ModelRate
from tests.fakes.queue_values import unsynced

SECOND = 1_000_000
UNITS = ("messages", "recipients", "sessions")
WHY = ("4.4.1", "connect to mx: refused")


def window(initial: int = 5, plus: str = "1", minus: str = "1", cohorts: float = 1.0, dead: int = 300) -> WindowRule:
    return WindowRule(
        initial=initial,
        positive=FeedbackRule.parse(plus),
        negative=FeedbackRule.parse(minus),
        failed_cohort_limit=cohorts,
        dead_time=timedelta(seconds=dead),
    )


def rate(unit: Unit, each: int, burst: int) -> Rate:
    return Rate(unit=unit, count=1, interval=timedelta(microseconds=each), burst=burst)


GATES = {
    "postfix": Gate(key="postfix", sessions=20, window=window()),
    "gentle": Gate(key="gentle", sessions=8, window=window(3, "1/concurrency", "1/concurrency"), kept_free=2),
    "slow": Gate(key="slow", window=window(2, "0.5", "1/3", 2.5, 40)),
    "brave": Gate(key="brave", sessions=4, window=window(9, "1", "0.7", 0)),
    "paused": Gate(key="paused", sessions=7, window=window(), rate_delay=timedelta(seconds=2)),
    "spaced": Gate(key="spaced", rate_delay=timedelta(seconds=3)),
    "few": Gate(key="few", sessions=3, kept_free=1, rates=(rate(Unit.MESSAGES, 250_000, 4),)),
    "account": Gate(key="account", rates=(rate(Unit.SESSIONS, 700_000, 2), rate(Unit.RECIPIENTS, 40_000, 10))),
    "free": Gate(key="free"),
}


def model() -> LimitsModel:
    """Return the same keys, spelt for the model."""
    slow = {"+": "0.5", "-": "1/3"}
    keys = {
        "postfix": ModelKey(limit=20, initial=5),
        "gentle": ModelKey(limit=8, initial=3, feedback={"+": "1/concurrency", "-": "1/concurrency"}, kept_free=2),
        "slow": ModelKey(initial=2, feedback=slow, cohort_limit=2.5, dead_time=40 * SECOND),
        "brave": ModelKey(limit=4, initial=9, feedback={"+": "1", "-": "0.7"}, cohort_limit=0),
        "paused": ModelKey(limit=7, initial=5, rate_delay=2 * SECOND),
        "spaced": ModelKey(rate_delay=3 * SECOND),
        "few": ModelKey(limit=3, kept_free=1, rates=[ModelRate("messages", 250_000, 4)]),
        "account": ModelKey(rates=[ModelRate("sessions", 700_000, 2), ModelRate("recipients", 40_000, 10)]),
        "free": ModelKey(),
    }
    return LimitsModel(keys)


amounts = st.fixed_dictionaries({unit: st.integers(0, 12) for unit in UNITS})
signs = st.sampled_from("++--0")
durations = st.one_of(
    st.integers(0, 1_000_000),
    st.integers(1, 20).map(lambda quarters: quarters * 250_000),
    st.sampled_from([2, 3, 10, 40, 299, 300, 301, 3599, 3600]).map(lambda seconds: seconds * SECOND),
)


class Machine(RuleBasedStateMachine):
    """Does the same to the model and to the implementation, and expects the same answers."""

    def __init__(self, make: Callable[[Callable[[], int]], Limits]) -> None:
        super().__init__()
        self.model = model()
        self.limits = make(lambda: self.model.now)
        self.sessions: dict[str, tuple[Admitted, list[str], bool]] = {}
        self.began = 0

    def teardown(self) -> None:
        self.limits.close()

    @rule(
        keys=st.lists(st.sampled_from(list(GATES)), min_size=1, max_size=3, unique=True),
        want=amounts,
        hold=st.integers(1, 400),
        urgent=st.booleans(),
        count=st.integers(1, 6),
    )
    def begin(self, keys, want, hold, urgent, count) -> None:
        gates = [gate_of(key, urgent) for key in keys]
        for _ in range(count):
            self.began += 1
            name = f"s{self.began}"
            expected = self.model.admit(name, keys, want, hold=hold * SECOND, urgent=urgent)
            found = self.limits.admit(gates, owner=name, hold_for=timedelta(seconds=hold), want=Amounts(**want))
            if expected is None:
                assert isinstance(found, Admitted)
                self.sessions[name] = (found, keys, urgent)
            else:
                assert isinstance(found, Refused)
                assert expected == refusal(found)
        self.compare(keys)

    @rule(duration=durations)
    def wait(self, duration) -> None:
        self.model.advance(duration)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), news=st.lists(signs, min_size=1, max_size=6))
    def note(self, data, news) -> None:
        name = data.draw(st.sampled_from(sorted(self.sessions)))
        admitted, keys, _ = self.sessions[name]
        self.hear(name, keys, news, self.limits.note(admitted, feedback(news)))
        self.compare(keys)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), sign=signs, want=amounts, least=amounts, patience=st.sampled_from([0, 1, 5]))
    def go_on(self, data, sign, want, least, patience) -> None:
        name = data.draw(st.sampled_from(sorted(self.sessions)))
        admitted, keys, urgent = self.sessions[name]
        spent = self.limits.spend(
            admitted,
            Amounts(**want),
            least=Amounts(**least),
            patience=timedelta(seconds=patience),
            news=feedback(sign),
        )
        self.hear(name, keys, [sign], spent.changes)
        needed = {unit: min(want[unit], max(least[unit], 1)) for unit in UNITS}
        granted, wait, refused = self.model.spend(name, keys, want, needed, patience=patience * SECOND, urgent=urgent)
        assert granted == {unit: getattr(spent.granted, unit) for unit in UNITS}
        assert wait == round(spent.wait_seconds * SECOND)
        assert refused == (None if spent.refused is None else refusal(spent.refused))
        self.compare(keys)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), news=st.lists(signs, max_size=2), drained=st.booleans(), count=st.integers(1, 4))
    def end(self, data, news, drained, count) -> None:
        for _ in range(min(count, len(self.sessions))):
            name = data.draw(st.sampled_from(sorted(self.sessions)))
            admitted, keys, _ = self.sessions.pop(name)
            changes = self.limits.release(admitted, news=feedback(news), drained=drained)
            self.hear(name, keys, news, changes)
            self.model.release(name, keys, drained=drained)
            self.compare(keys)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), hold=st.integers(1, 400))
    def renew(self, data, hold) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.sessions)), unique=True, max_size=4))
        held = [self.sessions[name] for name in names]
        gone = self.limits.renew([one for one, _, _ in held], hold_for=timedelta(seconds=hold))
        for name, (admitted, keys, _) in zip(names, held, strict=True):
            assert self.model.renew(name, keys, hold=hold * SECOND) == (admitted.token in gone)

    @rule(key=st.sampled_from(list(GATES)))
    def revive(self, key) -> None:
        self.model.revive(key)
        self.limits.revive([GATES[key]])
        self.compare([key])

    @rule(
        groups=st.lists(st.lists(st.sampled_from(list(GATES)), min_size=1, max_size=3, unique=True), max_size=3),
        urgent=st.booleans(),
    )
    def room(self, groups, urgent) -> None:
        expected = tuple(self.model.room(keys, urgent=urgent) for keys in groups)
        assert expected == self.limits.room([[gate_of(key, urgent) for key in keys] for keys in groups])

    def hear(self, name, keys, news, changes) -> None:
        """Let the model hear *news*, and compare which keys are dead by it."""
        died = [(key, sign) for key in keys for sign in news if sign != "0" and self.model.note(name, [key], sign, WHY)]
        assert [key for key, _ in died] == [change.key for change in changes if change.died]

    def compare(self, keys) -> None:
        for key, view in zip(keys, self.limits.look([GATES[key] for key in keys]), strict=True):
            one = self.model.keys[key]
            assert sorted((name, ends - self.model.now) for name, ends in one.running.items()) == [
                (holder.owner, holder.ends_in // timedelta(microseconds=1)) for holder in view.holders
            ]
            assert len(one.running) == view.busy
            assert [float(each.tokens) for each in one.rates] == pytest.approx(
                [left for _, left in view.tokens], abs=1e-4
            )
            if not one.watched:
                assert view.window is None
                continue
            assert one.window == view.window
            assert one.cohorts == view.cohorts
            assert one.state == view.state.value
            assert one.timer == (
                None if view.ends_in is None else self.model.now + round(view.ends_in.total_seconds() * 1e6)
            )
            assert one.why == (view.status, view.reason)


def gate_of(key: str, urgent: bool) -> Gate:  # noqa: FBT001 - drawn
    gate = GATES[key]
    return Gate(
        key=key,
        sessions=gate.sessions,
        window=gate.window,
        rates=gate.rates,
        rate_delay=gate.rate_delay,
        kept_free=gate.kept_free,
        urgent=urgent,
    )


def refusal(found: Refused) -> tuple[str, str, int]:
    return found.key, found.bar.value, round((found.wait_seconds or 0) * SECOND)


def feedback(signs: str | list[str]) -> list[Feedback]:
    verdicts = {"+": Verdict.POSITIVE, "-": Verdict.NEGATIVE, "0": Verdict.NONE}
    return [Feedback(verdict=verdicts[sign], status=WHY[0], reason=WHY[1]) for sign in signs]


def run(make: Callable[[Callable[[], int]], Limits], *, examples: int) -> None:
    checks = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(lambda: Machine(make), settings=checks)


def test_limits_of_one_process_do_what_the_rows_say():
    """Source: smtp-delivery Q-20 to Q-23, Q-26, Q-30, Q-31, Q-34 to Q-37, Q-39, Q-40."""
    run(lambda time: LocalLimits(time=time), examples=80)


class Timed:
    """The database's books at the model's time."""

    def __init__(self, books: StoredBooks, time: Callable[[], int]) -> None:
        self.books = books
        self.time = time
        self.prefix = f"{uuid4()}:"

    @contextmanager
    def open(self, keys: Collection[str]) -> Iterator[tuple[dict[str, str], int]]:
        with self.books.open({self.prefix + key for key in keys}) as (kept, _):
            texts = {key: kept[self.prefix + key] for key in keys}
            yield texts, self.time()
            kept.update((self.prefix + key, text) for key, text in texts.items())

    def read(self, keys: Collection[str]) -> tuple[Mapping[str, str], int]:
        texts, _ = self.books.read({self.prefix + key for key in keys})
        return {key.removeprefix(self.prefix): text for key, text in texts.items()}, self.time()


def test_limits_in_sqlite_do_what_the_rows_say(sqlite_url: str):
    """Source: smtp-delivery Q-20 to Q-23, Q-26, Q-30, Q-31, Q-34 to Q-37, Q-39, Q-40."""
    with closing(unsynced(Store.open(sqlite_url))) as store:
        run(lambda time: ShelfLimits(Timed(store.limit_books, time)), examples=15)


@pytest.mark.postgres
def test_limits_in_postgresql_do_what_the_rows_say(postgres_url: str):
    """Source: smtp-delivery Q-20 to Q-23, Q-26, Q-30, Q-31, Q-34 to Q-37, Q-39, Q-40."""
    with closing(Store.open(postgres_url)) as store:
        run(lambda time: ShelfLimits(Timed(store.limit_books, time)), examples=8)


@pytest.mark.redis
def test_limits_in_redis_do_what_the_rows_say(redis_server: RedisServer):
    """Source: smtp-delivery Q-20 to Q-23, Q-26, Q-30, Q-31, Q-34 to Q-37, Q-39, Q-40."""
    with redis_server.client() as client:
        run(lambda time: RedisLimits(client, prefix=f"{uuid4()}:", time=time), examples=40)
