"""What can be said in a rule, as TOML and as text, and what is told where it cannot be meant."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.limits.buckets import Rate, Unit
from mailq.limits.fields import FIELDS, SETTING_OF, shown, unknown_field, value_of
from mailq.limits.keys import Kind
from mailq.limits.window import FeedbackRule
from mailq.settings_values import FIELDS as SETTINGS

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def messages(count: int, interval: timedelta, burst: int = 1) -> Rate:
    return Rate(unit=Unit.MESSAGES, count=count, interval=interval, burst=burst)


@pytest.mark.parametrize(
    ("name", "raw", "value", "text"),
    [
        ("sessions", 5, 5, "5"),
        ("sessions", " 0 ", 0, "0"),
        ("rate", "14/s", (messages(14, SECOND),), "14/s"),
        ("rate", "100/min, 5000 / hour", (messages(100, MINUTE), messages(5000, HOUR)), "100/min, 5000/h"),
        ("rate", ["14/S burst=50"], (messages(14, SECOND, 50),), "14/s burst=50"),
        ("rate", "20/10s", (messages(20, 10 * SECOND),), "20/10s"),
        ("rate", "7/3600s", (messages(7, HOUR),), "7/h"),
        ("recipient_rate", "9/d", (Rate(unit=Unit.RECIPIENTS, count=9, interval=24 * HOUR),), "9/d"),
        ("session_rate", "1/m", (Rate(unit=Unit.SESSIONS, count=1, interval=MINUTE),), "1/min"),
        ("rate_delay", "1m30s", timedelta(seconds=90), "90s"),
        ("rate_delay", 2, timedelta(seconds=2), "2s"),
        ("positive_feedback", 0.5, FeedbackRule(0.5), "0.5"),
        ("negative_feedback", "1/concurrency", FeedbackRule(1, by_concurrency=True), "1/concurrency"),
        ("failed_cohort_limit", 0, 0, "0"),
        ("mx", "*.Google.com., mx.example", ("*.google.com", "mx.example"), "*.google.com, mx.example"),
        ("nexthops", ["[Relay.example]:587"], ("[relay.example]:587",), "[relay.example]:587"),
    ],
)
def test_a_value_is_read_from_toml_and_text_and_written_as_text(
    name: str, raw: object, value: object, text: str
) -> None:
    """Source: smtp-delivery Q-22, Q-23, Q-31, Q-40."""
    assert value == value_of(name, raw)
    assert text == shown(name, value)
    assert value == value_of(name, text)


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("sessions", -1, "must be a whole number from 0 to 100000, not -1"),
        ("sessions", True, "must be a whole number"),
        ("sessions", 2.5, "must be a whole number"),
        ("sessions", "many", "must be a whole number from 0 to 100000, not 'many'"),
        ("initial_sessions", 0, "from 1 to"),
        ("rate", "14", "must be a rate such as 14/s"),
        ("rate", 14, "must be a rate such as 14/s"),
        ("rate", "14/week", "must be a rate such as 14/s"),
        ("rate", "0/s", "is not from 1 to"),
        ("rate", "1/0s", "its interval is not from 1 second to 31 days"),
        ("rate", "1/99d", "its interval is not from 1 second to 31 days"),
        ("rate", "1/s burst=0", "is not from 1 to"),
        ("rate", "1/s, 2/1s", "two of them have the same interval"),
        ("rate", [], "or a list of rates, not"),
        ("rate", ["1/s", 2], "or a list of rates, not"),
        ("rate_delay", "soon", "must be a duration such as 2s"),
        ("positive_feedback", "2", "must be a number from 0 to 1, such as 1, 1/5 or 1/concurrency, not '2'"),
        ("positive_feedback", False, "must be a number from 0 to 1"),
        ("mx", "a b", "must be a list of host names"),
        ("addresses", "192.0.2.1/24", "has host bits set"),
        ("addresses", "mx.example", "must be a list of addresses or blocks such as 192.0.2.0/24"),
        ("nexthops", "[x", "must be a list of destinations"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_what_is_allowed(name: str, raw: object, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        value_of(name, raw)


@given(
    count=st.integers(1, 10**9),
    seconds=st.integers(1, 31 * 86400),
    burst=st.integers(1, 10**9),
    unit=st.sampled_from(Unit),
)
def test_any_rate_is_written_so_that_it_is_read_again(count: int, seconds: int, burst: int, unit: Unit) -> None:
    name = {Unit.MESSAGES: "rate", Unit.RECIPIENTS: "recipient_rate", Unit.SESSIONS: "session_rate"}[unit]
    rates = (Rate(unit=unit, count=count, interval=timedelta(seconds=seconds), burst=burst),)
    assert rates == value_of(name, shown(name, rates))


@given(st.floats(0, 1), st.booleans())
def test_any_feedback_is_written_so_that_it_is_read_again(number: float, by_concurrency: bool) -> None:  # noqa: FBT001 - drawn
    rule = FeedbackRule(number, by_concurrency=by_concurrency)
    assert rule == value_of("positive_feedback", shown("positive_feedback", rule))


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (Kind.DEFAULT, "session", "is unknown; did you mean 'sessions'?"),
        (Kind.SITE, "destination_concurrency_limit", "is unknown; did you mean 'sessions'?"),
        (Kind.TENANT, "concurrency_limit", "is unknown; did you mean 'sessions'?"),
        (Kind.TENANT, "zzz", "is unknown; there are sessions, rate, recipient_rate, session_rate"),
        (Kind.DESTINATION, "mx", "is not for a destination, only for: provider"),
        (Kind.SOURCE, "rate_delay", "is not for a source, only for: account, default"),
    ],
)
def test_a_field_that_there_is_not_is_told_with_the_nearest(kind: Kind, name: str, said: str) -> None:
    assert unknown_field(kind, name).startswith(said)


def test_every_default_comes_from_a_setting_that_there_is() -> None:
    assert set() == set(SETTING_OF.values()) - SETTINGS.keys()
    assert set() == SETTING_OF.keys() - FIELDS.keys()
