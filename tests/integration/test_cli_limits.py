"""``mailq limits`` on the command line: set, unset, list, check, explain."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mailq.cli import main
from mailq.testing.dnsd import DnsServer

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, sqlite_template: bytes, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``mailq`` with the arguments given, on an empty queue and with a file of limits."""
    (tmp_path / "queue.db").write_bytes(sqlite_template)
    (tmp_path / "limits.toml").write_text('[site."mx.far.test"]\nsessions = 4\n', encoding="utf-8")
    monkeypatch.setenv("MAILQ_DATABASE_URL", f"sqlite:///{tmp_path}/queue.db")
    monkeypatch.setenv("MAILQ_LIMITS_FILE", f"{tmp_path}/limits.toml")
    monkeypatch.setenv("MAILQ_DESTINATION_CONCURRENCY_LIMIT", "7")
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *arguments: CliRunner().invoke(main, ["limits", *arguments])


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server that knows far.test."""
    with DnsServer({"far.test": {"MX": ["10 mx.far.test"]}, "mx.far.test": {"A": ["192.0.2.1"]}}) as server:
        monkeypatch.setenv("MAILQ_NAMESERVERS", server.nameserver)
        monkeypatch.setenv("MAILQ_INET_PROTOCOLS", "ipv4")
        yield


def _json(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_what_is_set_is_listed_with_who_set_it_until_it_is_unset(run: Run) -> None:
    done = run("set", "site:mx.far.test", "sessions=2", "rate=14/s burst=50, 5000/h", "--reason", "they asked")
    assert (0, ["site:mx.far.test: rate 14/s burst=50, 5000/h", "site:mx.far.test: sessions 2"]) == (
        done.exit_code,
        done.stdout.splitlines(),
    )
    said = _json(run("list", "--json"))
    assert [("sessions", "2", True), ("sessions", "4", False), ("rate", "14/s burst=50, 5000/h", True)] == [
        (one["field"], one["value"], one["in_force"]) for one in said
    ]
    assert said[0]["source"].endswith("UTC: they asked")
    assert said[1]["source"].endswith("limits.toml:2")
    assert "FOR               FIELD" in run("list").stdout
    assert "site:mx.far.test: rate, sessions unset.\n" == run("unset", "site:mx.far.test").stdout
    assert "site:mx.far.test: nothing was set.\n" == run("unset", "site:mx.far.test").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["set", "nobody", "sessions=1"], 65, "is nothing that limits are set for"),
        (["set", "default", "sessions=x"], 65, "must be a whole number from 0 to 100000, not 'x'"),
        (["set", "default", "sessions"], 2, "write FIELD=VALUE"),
        (["set", "default", "sessions=1", "sessions=2"], 2, "sessions is there twice"),
        (["set", "default"], 2, "Missing argument"),
        (["unset", "default", "colour"], 65, "colour is unknown"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_set(run: Run, arguments: list[str], code: int, said: str) -> None:
    result = run(*arguments)
    assert code == result.exit_code
    assert said in result.stderr
    assert 1 == len(_json(run("list", "--json")))


def test_a_file_is_checked_without_a_database(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILQ_DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    good = run("check")
    assert (0, True) == (good.exit_code, good.stdout.endswith("limits.toml: 1 table, no mistakes.\n"))
    (tmp_path / "new.toml").write_text("[default]\nsesions = 1\n[site.x]\nrate = 5\n")
    bad = run("check", f"{tmp_path}/new.toml")
    assert (78, 2) == (bad.exit_code, len(bad.stdout.splitlines()))
    assert f"{tmp_path}/new.toml:2: [default] sesions is unknown; did you mean 'sessions'?" in bad.stdout
    assert 78 == run("check", f"{tmp_path}/none.toml").exit_code
    monkeypatch.delenv("MAILQ_LIMITS_FILE")
    assert (2, True) == ((nothing := run("check")).exit_code, "set limits_file" in nothing.stderr)


def test_a_domain_is_explained_by_its_servers_with_where_each_number_comes_from(run: Run, dns: None) -> None:
    told = run("explain", "Far.test").stdout
    assert "Mail goes to far.test, by mx.far.test." in told
    assert "nexthop:far.test: at most 7 sessions" in told
    assert "destination_concurrency_limit (environment MAILQ_DESTINATION_CONCURRENCY_LIMIT)" in told
    assert "site:mx.far.test: at most 4 sessions" in told
    assert "lane:unproven: at most 75 sessions" in told
    (found,) = _json(run("explain", "far.test", "--json"))
    assert (["mx.far.test"], ["nexthop:far.test", "site:mx.far.test", "lane:unproven"]) == (
        found["hosts"],
        [one["key"] for one in found["limits"]],
    )


def test_a_domain_without_servers_is_explained_with_the_reason(run: Run, dns: None) -> None:
    told = run("explain", "nowhere.test").stdout
    assert "Host or domain name not found" in told
    assert "nexthop:nowhere.test: at most 7 sessions" in told


def test_a_file_with_a_mistake_is_no_reason_to_explain_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("[default]\nsessions = -1", encoding="utf-8")
    told = run("explain", "[relay.test]:587", "--no-dns").stdout
    assert "Mail goes to [relay.test]:587." in told
    assert "nexthop:[relay.test]:587: at most 7 sessions" in told
    assert "Not in force: The limits" not in told
    assert "limits.toml:2: [default] sessions must be a whole number" in told
