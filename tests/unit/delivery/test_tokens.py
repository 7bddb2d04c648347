"""Tokens are fetched once an account, and in time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from mailq.delivery.tokens import MOST_ACCOUNTS, TokenCache
from mailq.errors import HookFailedError
from mailq.smtp.credentials import AccessToken, TokenRequest
from tests.fakes.clock import FakeClock

ANN = TokenRequest(user="ann@example.test", host="smtp.example.test", port=587)
BOB = TokenRequest(user="bob@example.test", host="smtp.example.test", port=587)
HOUR = timedelta(hours=1)


class Issuer:
    """Hands out numbered tokens that hold for an hour."""

    def __init__(self, life: timedelta | None = HOUR) -> None:
        self.clock = FakeClock()
        self.life = life
        self.issued = 0
        self.fails = False

    def __call__(self, request: TokenRequest) -> AccessToken:
        self.issued += 1
        if self.fails:
            raise HookFailedError("access_token")
        expires_at = None if self.life is None else self.clock.now() + self.life
        return AccessToken(f"{request.user} {self.issued}", expires_at)

    def cache(self, **options) -> TokenCache:
        return TokenCache(self, clock=self.clock, **options)


def test_a_token_is_fetched_once_an_account():
    issuer = Issuer()
    cache = issuer.cache()
    assert ["ann@example.test 1"] * 2 == [cache.get(ANN).value for _ in range(2)]
    assert "bob@example.test 2" == cache.get(BOB).value


@pytest.mark.parametrize(
    ("life", "after", "issued"),
    [
        (HOUR, timedelta(minutes=54), 1),
        (HOUR, timedelta(minutes=55), 2),
        (timedelta(minutes=10), timedelta(minutes=8), 1),
        (timedelta(minutes=10), timedelta(minutes=9), 2),
        (None, timedelta(days=400), 1),
        (timedelta(seconds=-1), timedelta(0), 2),
    ],
)
def test_a_token_is_renewed_shortly_before_its_end(life, after, issued):
    issuer = Issuer(life)
    cache = issuer.cache()
    cache.get(ANN)
    issuer.clock.advance(after.total_seconds())
    cache.get(ANN)
    assert issued == issuer.issued


def test_while_renewing_fails_the_old_token_serves_to_its_end():
    issuer = Issuer()
    cache = issuer.cache()
    first = cache.get(ANN)
    issuer.fails = True
    issuer.clock.advance(3599)
    assert first == cache.get(ANN)
    issuer.clock.advance(1)
    with pytest.raises(HookFailedError):
        cache.get(ANN)
    issuer.fails = False
    assert first != cache.get(ANN)


def test_a_refused_token_is_forgotten_but_not_a_newer_one():
    issuer = Issuer()
    cache = issuer.cache()
    first = cache.get(ANN)
    cache.reject(ANN, first)
    second = cache.get(ANN)
    assert first != second
    cache.reject(ANN, first)
    assert second == cache.get(ANN)


class SlowIssuer(Issuer):
    """Waits in the middle of each call until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.called = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, request: TokenRequest) -> AccessToken:
        self.called.set()
        assert self.may_go_on.wait(10)
        return super().__call__(request)


def test_one_renewal_at_a_time_and_the_others_get_what_it_brings():
    issuer = SlowIssuer()
    cache = issuer.cache()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.get, ANN) for _ in range(8)]
        assert issuer.called.wait(10)
        issuer.may_go_on.set()
        tokens = {one.result(timeout=10).value for one in waiting}
    assert {"ann@example.test 1"} == tokens
    assert 1 == issuer.issued


def test_whoever_may_use_the_old_token_does_not_wait_for_the_new_one():
    issuer = SlowIssuer()
    issuer.may_go_on.set()
    cache = issuer.cache()
    old = cache.get(ANN)
    issuer.clock.advance(3400)
    issuer.may_go_on.clear()
    issuer.called.clear()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(cache.get, ANN)
        assert issuer.called.wait(10)
        assert old == cache.get(ANN)
        issuer.may_go_on.set()
        assert old != renewing.result(timeout=10)


def test_nobody_waits_without_end_for_another_ones_hook():
    issuer = SlowIssuer()
    cache = issuer.cache(longest_wait=timedelta(seconds=0.05))
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(cache.get, ANN)
        assert issuer.called.wait(10)
        with pytest.raises(HookFailedError):
            cache.get(ANN)
        issuer.may_go_on.set()
        assert "ann@example.test 1" == renewing.result(timeout=10).value


class CountingClock(FakeClock):
    """Counts how often it was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = threading.Semaphore(0)

    def now(self) -> datetime:
        self.looks.release()
        return super().now()


def test_those_who_waited_for_a_renewal_that_failed_do_not_all_try_again():
    issuer = SlowIssuer()
    issuer.fails = True
    issuer.clock = clock = CountingClock()
    cache = issuer.cache()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get, ANN)
        assert issuer.called.wait(10)
        rest = [pool.submit(cache.get, ANN) for _ in range(7)]
        # The first looked three times before it called, each other one twice before it waits.
        for _ in range(3 + 7 * 2):
            assert clock.looks.acquire(timeout=10)
        issuer.may_go_on.set()
        assert all(isinstance(one.exception(timeout=10), HookFailedError) for one in (first, *rest))
    assert 1 == issuer.issued


def test_accounts_are_bounded():
    issuer = Issuer()
    cache = issuer.cache()
    for number in range(MOST_ACCOUNTS + 1):
        cache.get(TokenRequest(user=str(number), host="h", port=None))
    assert MOST_ACCOUNTS == len(cache._accounts)
    cache.get(TokenRequest(user=str(MOST_ACCOUNTS), host="h", port=None))
    assert MOST_ACCOUNTS + 1 == issuer.issued
