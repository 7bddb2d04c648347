"""Which policy holds, with a domain and a memory that a test plays. Source: RFC 8461 §3.3, §5.1, smtp-delivery C-36."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from mailq.errors import DatabaseUnavailableError, LookupFailedError, LookupKind
from mailq.tls.sts import StsPolicy
from mailq.tls.sts_cache import CHECK_SECONDS, KnownPolicy, StsCache, is_to_be_fetched
from mailq.tls.sts_fetch import PolicyUnavailableError

WEEK = 604_800
ENFORCE = StsPolicy("far.test", "1", "enforce", ("mx.far.test",), WEEK)
DOWN = PolicyUnavailableError("sts-policy-fetch-error", "mta-sts.far.test: Connection refused")


@dataclass
class World:
    """A domain, the time, and the memory of all workers."""

    version: str | None = "1"
    policy: StsPolicy | PolicyUnavailableError = ENFORCE
    now: float = 1000.0
    dns_down: bool = False
    memory_down: bool = False
    asked: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    rows: dict[str, tuple[KnownPolicy, float, float | None]] = field(default_factory=dict)
    gate: threading.Event | None = None

    def cache(self) -> StsCache:
        return StsCache(self, self, timeout_seconds=10, monotonic=lambda: self.now)

    def pass_time(self, seconds: float = CHECK_SECONDS) -> None:
        self.now += seconds

    # The domain

    def announced(self, domain: str) -> str | None:
        self.asked.append(domain)
        if self.dns_down:
            raise LookupFailedError(LookupKind.RETRY, "try again")
        return self.version

    def fetch(self, domain: str, version: str) -> StsPolicy:
        self.fetched.append(version)
        if self.gate is not None:
            assert self.gate.wait(30)
        if isinstance(self.policy, PolicyUnavailableError):
            raise self.policy
        return replace(self.policy, domain=domain, id=version)

    # The memory

    def recall(self, domain: str) -> KnownPolicy | None:
        self._look_up()
        if domain not in self.rows:
            return None
        known, written_at, failed_at = self.rows[domain]
        age = self.now - written_at
        failed = None if failed_at is None else self.now - failed_at
        return replace(
            known,
            left_seconds=known.left_seconds - age,
            checked_seconds=known.checked_seconds + age,
            failed_seconds=failed,
        )

    def remember(self, policy: StsPolicy) -> None:
        self._look_up()
        known = KnownPolicy(domain=policy.domain, policy=policy, left_seconds=policy.max_age_seconds, checked_seconds=0)
        self.rows[policy.domain] = (known, self.now, None)

    def note_checked(self, domain: str) -> None:
        known = self.recall(domain)
        assert known is not None
        self.rows[domain] = (replace(known, checked_seconds=0), self.now, self.rows[domain][2])

    def note_failure(self, domain: str, version: str, failure: str) -> None:
        self._look_up()
        known = self.recall(domain) or KnownPolicy(domain=domain, policy=None, left_seconds=0, checked_seconds=0)
        self.rows[domain] = (replace(known, checked_seconds=0, failure=failure), self.now, self.now)

    def take_due(self, *, limit: int) -> Sequence[KnownPolicy]:
        return [known for domain in self.rows if (known := self.recall(domain))][:limit]

    def purge(self) -> int:
        return 0

    def _look_up(self) -> None:
        if self.memory_down:
            raise DatabaseUnavailableError("down")


def test_a_policy_is_fetched_once_and_holds_for_all_workers() -> None:
    world = World()
    assert [ENFORCE, ENFORCE] == [world.cache().policy_for("far.test") for _ in range(2)]
    assert ["1"] == world.fetched


def test_this_process_does_not_ask_again_for_some_minutes() -> None:
    world = World()
    cache = world.cache()
    assert ENFORCE == cache.policy_for("far.test")
    world.memory_down = True
    world.pass_time(CHECK_SECONDS - 1)
    assert (ENFORCE, ["far.test"]) == (cache.policy_for("far.test"), world.asked)


def test_names_of_one_domain_are_one() -> None:
    world = World()
    cache = world.cache()
    assert 3 == sum(cache.policy_for(name) == ENFORCE for name in ("far.test", "FAR.test", "far.test."))
    assert ["1"] == world.fetched


@pytest.mark.parametrize("name", ["192.0.2.1", "2001:db8::1", "", "a b", "[192.0.2.1]", "x..y"])
def test_what_is_no_domain_has_no_policy_and_is_not_asked_for(name: str) -> None:
    world = World()
    assert (None, []) == (world.cache().policy_for(name), world.asked)


def test_a_domain_without_an_announcement_has_no_policy_and_is_asked_again_later() -> None:
    world = World(version=None)
    cache = world.cache()
    assert [None, None] == [cache.policy_for("far.test") for _ in range(2)]
    assert (["far.test"], []) == (world.asked, world.fetched)
    world.version = "1"
    world.pass_time()
    assert ENFORCE == cache.policy_for("far.test")


def test_a_policy_of_testing_is_handed_out_and_one_of_none_is_not() -> None:
    world = World(policy=replace(ENFORCE, mode="testing"))
    assert replace(ENFORCE, mode="testing") == world.cache().policy_for("far.test")
    world = World(policy=replace(ENFORCE, mode="none", mx=()))
    assert world.cache().policy_for("far.test") is None


def test_a_policy_of_none_replaces_the_one_before() -> None:
    world = World()
    cache = world.cache()
    assert ENFORCE == cache.policy_for("far.test")
    world.version, world.policy = "2", replace(ENFORCE, mode="none", mx=())
    world.pass_time()
    assert (None, ["1", "2"]) == (cache.policy_for("far.test"), world.fetched)


def test_another_version_is_fetched_and_replaces_the_policy() -> None:
    world = World()
    cache = world.cache()
    assert ENFORCE == cache.policy_for("far.test")
    world.version, world.policy = "2", replace(ENFORCE, mx=("new.far.test",))
    world.pass_time()
    assert StsPolicy("far.test", "2", "enforce", ("new.far.test",), WEEK) == cache.policy_for("far.test")


def test_the_same_version_is_not_fetched_again() -> None:
    world = World()
    cache = world.cache()
    for _ in range(3):
        assert ENFORCE == cache.policy_for("far.test")
        world.pass_time()
    assert ["1"] == world.fetched


@pytest.mark.parametrize("stripped", ["gone", "unreachable"])
def test_an_announcement_that_is_stripped_ends_no_policy(stripped: str) -> None:
    """A downgrade: who controls the answers of DNS must not be able to take a policy away."""
    world = World()
    cache = world.cache()
    assert ENFORCE == cache.policy_for("far.test")
    world.version = None
    world.dns_down = stripped == "unreachable"
    world.pass_time()
    assert [ENFORCE, ENFORCE] == [cache.policy_for("far.test"), world.cache().policy_for("far.test")]
    world.pass_time(WEEK)
    assert cache.policy_for("far.test") is None


def test_a_policy_host_that_fails_for_another_version_leaves_the_policy_until_it_expires() -> None:
    world = World()
    cache = world.cache()
    assert ENFORCE == cache.policy_for("far.test")
    world.version, world.policy = "2", DOWN
    world.pass_time()
    assert ENFORCE == cache.policy_for("far.test")
    assert "sts-policy-fetch-error: mta-sts.far.test: Connection refused" == cache.failure_for("far.test")
    world.pass_time(WEEK)
    assert cache.policy_for("far.test") is None


def test_a_failed_fetch_is_not_repeated_for_five_minutes_by_any_worker() -> None:
    world = World(policy=DOWN)
    assert [None, None] == [world.cache().policy_for("far.test") for _ in range(2)]
    assert ["1"] == world.fetched
    world.pass_time()
    world.policy = ENFORCE
    assert (ENFORCE, ["1", "1"]) == (world.cache().policy_for("far.test"), world.fetched)


def test_the_reason_of_a_failure_is_forgotten_when_the_policy_is_had() -> None:
    world = World(policy=DOWN)
    cache = world.cache()
    assert (None, True) == (cache.policy_for("far.test"), bool(cache.failure_for("far.test")))
    world.policy = ENFORCE
    world.pass_time()
    assert (ENFORCE, "") == (cache.policy_for("far.test"), cache.failure_for("far.test"))


def test_an_expired_policy_is_fetched_again() -> None:
    short = replace(ENFORCE, max_age_seconds=100)
    world = World(policy=short)
    cache = world.cache()
    assert short == cache.policy_for("far.test")
    world.pass_time()
    assert (short, ["1", "1"]) == (cache.policy_for("far.test"), world.fetched)


def test_a_policy_that_lives_no_time_holds_for_the_mail_that_asked() -> None:
    world = World(policy=replace(ENFORCE, max_age_seconds=0))
    cache = world.cache()
    assert [replace(ENFORCE, max_age_seconds=0)] * 2 == [cache.policy_for("far.test") for _ in range(2)]
    assert ["1"] == world.fetched


def test_a_memory_that_is_down_leaves_this_process_with_its_own() -> None:
    world = World(memory_down=True)
    cache = world.cache()
    assert ENFORCE == cache.policy_for("far.test")
    world.version = None
    world.pass_time()
    assert (ENFORCE, ["1"]) == (cache.policy_for("far.test"), world.fetched)


def test_a_refresh_fetches_ahead_even_where_the_announcement_is_gone() -> None:
    world = World()
    cache = world.cache()
    cache.policy_for("far.test")
    world.version, world.policy = None, replace(ENFORCE, mx=("new.far.test",))
    assert 1 == cache.refresh(limit=5)
    assert replace(ENFORCE, mx=("new.far.test",)) == world.cache().policy_for("far.test")


def test_a_refresh_that_fails_changes_nothing() -> None:
    world = World()
    cache = world.cache()
    cache.policy_for("far.test")
    world.policy = DOWN
    assert 1 == cache.refresh(limit=5)
    assert ENFORCE == cache.policy_for("far.test")


def test_many_that_ask_at_once_lead_to_one_fetch() -> None:
    world = World(gate=threading.Event())
    cache = world.cache()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.policy_for, "far.test") for _ in range(8)]
        assert world.gate is not None
        world.gate.set()
        assert [ENFORCE] * 8 == [one.result(timeout=30) for one in asked]
    assert ["1"] == world.fetched


@pytest.mark.parametrize(
    ("known", "version", "fetch"),
    [
        (None, None, False),
        (None, "1", True),
        (KnownPolicy(domain="d", policy=ENFORCE, left_seconds=1, checked_seconds=0), "1", False),
        (KnownPolicy(domain="d", policy=ENFORCE, left_seconds=1, checked_seconds=0), "2", True),
        (KnownPolicy(domain="d", policy=ENFORCE, left_seconds=0, checked_seconds=0), "1", True),
        (KnownPolicy(domain="d", policy=ENFORCE, left_seconds=1, checked_seconds=0, failed_seconds=299), "2", False),
        (KnownPolicy(domain="d", policy=ENFORCE, left_seconds=1, checked_seconds=0, failed_seconds=300), "2", True),
        (KnownPolicy(domain="d", policy=None, left_seconds=0, checked_seconds=0, failed_seconds=0), "1", False),
    ],
)
def test_what_is_announced_and_not_known_is_to_be_fetched(
    known: KnownPolicy | None, version: str | None, *, fetch: bool
) -> None:
    assert fetch is is_to_be_fetched(known, version)
