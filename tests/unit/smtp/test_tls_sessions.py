"""Sessions kept for resumption: bounded in number and time. Source: postconf(5) smtp_tls_session_cache_timeout."""

from typing import Any

from mailq.smtp.tls_sessions import MOST_SESSIONS, Resumable, TlsSessions


def sessions(lifetime_seconds: float = 100) -> tuple[TlsSessions, list[float]]:
    now = [0.0]
    return TlsSessions(lifetime_seconds, monotonic=lambda: now[0]), now


def resumable(name: Any) -> Resumable:
    return Resumable(name, ())


def test_a_session_is_found_under_its_own_key_alone() -> None:
    kept, _ = sessions()
    kept.keep("a", resumable(1))
    kept.keep("b", resumable(2))
    kept.keep("b", resumable(3))
    assert [1, 3, None] == [found.session if (found := kept.find(key)) else None for key in "abc"]


def test_a_session_is_offered_until_its_time_is_over() -> None:
    kept, now = sessions()
    kept.keep("a", resumable(1))
    now[0] = 99.9
    assert kept.find("a") is not None
    now[0] = 100.0
    assert kept.find("a") is None


def test_a_dropped_session_is_gone() -> None:
    kept, _ = sessions()
    kept.keep("a", resumable(1))
    kept.drop("a")
    kept.drop("never there")
    assert kept.find("a") is None


def test_the_oldest_goes_when_there_are_too_many() -> None:
    kept, _ = sessions()
    for number in range(MOST_SESSIONS):
        kept.keep(number, resumable(number))
    kept.keep(0, resumable("again"))
    kept.keep("one more", resumable("new"))
    assert kept.find(0) is not None
    assert kept.find(1) is None
    assert kept.find(2) is not None


def test_with_no_lifetime_nothing_is_kept() -> None:
    kept, _ = sessions(0)
    assert not kept.enabled
    kept.keep("a", resumable(1))
    assert kept.find("a") is None
