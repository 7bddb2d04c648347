"""Tables and times for people."""

from datetime import UTC, datetime, timedelta

import pytest

from mailq.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from mailq.cli.text import cut, printable, relative, span, table, tls_line
from mailq.errors import BrokerUnavailableError, ContentError, SchemaError

_NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [
        ("0s", 0),
        ("0s", 0.4),
        ("45s", 45),
        ("1m", 60),
        ("9m59s", 599),
        ("10m", 600),
        ("59m", 3599),
        ("1h20m", 4800),
        ("3d", 259_200),
        ("12d", 1_080_000),
    ],
)
def test_a_span_has_no_more_detail_than_helps(expected: str, seconds: float) -> None:
    assert expected == span(timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("expected", "instant"),
    [
        ("-", None),
        ("now", _NOW),
        ("in 5m", _NOW + timedelta(minutes=5)),
        ("2h ago", _NOW - timedelta(hours=2)),
    ],
)
def test_an_instant_is_seen_from_now(expected: str, instant: datetime | None) -> None:
    assert expected == relative(instant, _NOW)


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    assert printable("\x1b[31mred\u202e\r\n") == " [31mred   "


@pytest.mark.parametrize(("expected", "width"), [("abcdef", 6), ("abc…", 4), ("…", 1)])
def test_text_that_is_cut_says_so(expected: str, width: int) -> None:
    assert expected == cut("abcdef", width)


def test_the_last_column_of_a_table_takes_what_is_left() -> None:
    lines = list(table(("A", "LAST"), [("one", "x" * 50), ("fourteen", "y")], width=40))

    assert ["A         LAST", "one       " + "x" * 29 + "…", "fourteen  y"] == lines


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (65, ContentError("x")),
        (69, BrokerUnavailableError("x")),
        (78, SchemaError("x")),
        (1, ZeroDivisionError("x")),
    ],
)
def test_an_exit_code_tells_the_kind_of_error(expected: int, error: Exception) -> None:
    assert expected == exit_code_of(error)


def test_every_exit_code_has_its_meaning() -> None:
    assert set(ExitCode) == set(MEANINGS)


_TLS = {"protocol": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "peer_name": "", "verified_by": "", "problem": ""}


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        (
            "TLSv1.3 TLS_AES_256_GCM_SHA384 mx.far.test, verified by TLSA 3 1 1",
            {"peer_name": "mx.far.test", "verified_by": "TLSA 3 1 1"},
        ),
        (
            "TLSv1.3 TLS_AES_256_GCM_SHA384 mx.far.test, certificate has expired",
            {"peer_name": "mx.far.test", "problem": "certificate has expired"},
        ),
        ("TLSv1.3 TLS_AES_256_GCM_SHA384, not verified", {}),
        ("plaintext: STARTTLS not offered", {"protocol": "", "problem": "STARTTLS not offered"}),
        ("plaintext", {"protocol": ""}),
    ],
)
def test_a_session_s_encryption_is_told_in_a_line(expected: str, fields: dict[str, str]) -> None:
    assert expected == tls_line({**_TLS, **fields})
