"""Operating the queue on the command line: what is shown before, what is asked, what is told and kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mailq.cli import act, main
from mailq.queue.store import Store
from tests.fakes.queue_values import MINUTE, deferred, finish, recipients_of

Run = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path, sqlite_template: bytes) -> str:
    """The URL of an empty queue."""
    (tmp_path / "queue.db").write_bytes(sqlite_template)
    return f"sqlite:///{tmp_path}/queue.db"


@pytest.fixture
def run(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``mailq`` with the arguments given, on that queue."""
    monkeypatch.setenv("MAILQ_DATABASE_URL", database)
    monkeypatch.setenv("MAILQ_MYHOSTNAME", "mail.home.test")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "250")

    def run_it(*arguments: str, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(main, list(arguments), input=stdin)

    return run_it


def _json(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def _send(run: Run, *arguments: str) -> str:
    result = run("send", "-f", "ann@example.org", "--subject", "Hi", "--text", "Hello", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def _states(run: Run) -> list[str]:
    return [line["state"] for line in _json(run("list", "--json"))]


def test_a_dry_run_tells_and_touches_nothing(run: Run) -> None:
    queue_id = _send(run, "--to", "bob@x.org", "--to", "eve@y.org")

    said = run("cancel", "--dry-run", queue_id)

    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        "2 recipients would be cancelled.",
        "By state: queued 2",
        "By nexthop: x.org 1, y.org 1",
        "For example:",
        f"  {queue_id}  bob@x.org, queued",
        f"  {queue_id}  eve@y.org, queued",
    ]
    assert _states(run) == ["queued", "queued"]
    (preview,) = _json(run("cancel", "--dry-run", "--json", queue_id))
    assert (preview["count"], preview["by_state"], preview["nexthops"]) == (2, {"queued": 2}, 2)
    assert run("audit").stderr == "Nothing is on record.\n"


def test_where_nobody_can_be_asked_an_order_needs_yes(run: Run) -> None:
    queue_id = _send(run, "--to", "bob@x.org")

    refused = run("hold", queue_id)

    assert refused.exit_code == 2
    assert "1 recipient would be held; nobody can be asked here: say --yes, or --dry-run to see" in refused.stderr
    assert _states(run) == ["queued"]


@pytest.mark.parametrize(
    ("answer", "code", "state"), [(b"y\n", 0, "held"), (b"n\n", 130, "queued"), (b"", 130, "queued")]
)
def test_people_are_shown_the_count_and_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int, state: str
) -> None:
    monkeypatch.setattr(act, "is_interactive", lambda: True)
    queue_id = _send(run, "--to", "bob@x.org")

    result = run("hold", queue_id, stdin=answer)

    assert code == result.exit_code
    assert "1 recipient would be held." in result.stderr
    assert "Go on?" in result.stderr
    assert _states(run) == [state]


def test_both_counts_are_told_when_the_queue_moved_meanwhile(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    queue_id = _send(run, "--to", "bob@x.org", "--to", "eve@y.org")
    ask = act._confirm

    def meanwhile(session: Any, preview: Any, done: str, *, yes: bool) -> None:
        ask(session, preview, done, yes=yes)
        session.queue().cancel(domain="y.org")

    monkeypatch.setattr(act, "_confirm", meanwhile)

    result = run("hold", "--yes", queue_id)

    assert result.stdout == "1 recipient held. 2 had been counted; the queue moved meanwhile.\n"


def test_bounce_expire_and_reroute_do_what_they_say(run: Run) -> None:
    first, second, third = (_send(run, "--to", f"bob@{domain}") for domain in ("x.org", "y.org", "z.org"))

    assert run("bounce", "--yes", "--reason", "no such office", first).stdout == "1 recipient returned.\n"
    assert run("expire", "--yes", second).stdout == "1 recipient expired.\n"
    assert run("reroute", "--yes", "--to", "[relay.org]:587", third).stdout == "1 recipient rerouted.\n"

    listed = _json(run("list", "--json"))
    assert [line["state"] for line in listed] == ["bounced", "expired", "queued"]
    assert listed[0]["last_reason"] == "no such office"
    assert listed[2]["nexthop"] == "[relay.org]:587"
    wrong = run("reroute", "--yes", "--to", "[relay", third)
    assert wrong.exit_code == 65
    assert "cannot reroute there: bad destination '[relay'" in wrong.stderr


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--tag", "run=7"], "a"),
        (["--tenant", "acme"], "b"),
        (["--class", "password"], "c"),
        (["--older-than", "1h"], ""),
        (["--newer-than", "1h"], "abcd"),
        (["--text", "timed OUT"], "d"),
        (["--code", "450"], ""),
        (["--uncertain"], ""),
        (["--state", "deferred"], "d"),
        (["--state", "deferred", "--domain", "x.org"], ""),
    ],
)
def test_every_verb_chooses_by_the_same_options(run: Run, database: str, options: list[str], chosen: str) -> None:
    for name, more in {
        "a": ["--tag", "run=7"],
        "b": ["--tenant", "acme"],
        "c": ["--class", "password"],
        "d": [],
    }.items():
        _send(run, "--to", f"{name}@{'y' if name == 'd' else 'x'}.org", *more)
    store = Store.open(database)
    lease = store.claim("y.org", owner="w", limit=9, lease_time=MINUTE)
    assert lease is not None
    finish(store, [deferred(one, wait=MINUTE) for one in recipients_of(lease)], lease)
    store.close()

    assert [line["address"][0] for line in _json(run("list", "--json", *options))] == list(chosen)
    (preview,) = _json(run("hold", "--dry-run", "--json", *options))
    assert preview["count"] == len(chosen)


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (2, "write NAME=VALUE, not 'run'", ["hold", "--tag", "run"]),
        (65, "a reply code is between 200 and 599, not 42", ["hold", "--yes", "--code", "42"]),
        (2, "must be a duration such as", ["list", "--older-than", "soon"]),
        (2, "Missing option '--to'", ["reroute", "--yes", "--all"]),
        (65, "bad pattern 'site:a b'", ["suspend", "site:a b"]),
        (65, "no message has the queue id NOSUCH", ["explain", "NOSUCH"]),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, code: int, said: str, arguments: list[str]) -> None:
    result = run(*arguments)

    assert code == result.exit_code
    assert said in result.stderr


def test_a_destination_is_suspended_listed_and_resumed(run: Run) -> None:
    assert run("suspensions").stderr == "Nothing is suspended.\n"
    first = run("suspend", "site:*.x.org", "--for", "2h", "--reason", "they move")
    assert first.stdout.startswith("site:*.x.org is suspended until 20")
    assert run("suspend", "y.org").stdout == 'nexthop:y.org is suspended until "mailq resume".\n'

    rows = run("suspensions").stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["nexthop:y.org", "site:*.x.org"]
    assert rows[1].endswith("they move")
    assert [line["pattern"] for line in _json(run("suspensions", "--json"))] == ["nexthop:y.org", "site:*.x.org"]
    assert run("resume", "y.org").stdout == "y.org is resumed.\n"
    assert run("resume", "y.org").stdout == "y.org was not suspended.\n"


def test_explain_says_what_blocks_and_what_comes_next(run: Run) -> None:
    queue_id = _send(run, "--to", "bob@x.org", "--to", "eve@y.org")
    run("hold", "--yes", "--reason", "wrong link", "--domain", "x.org")

    lines = run("explain", queue_id).stdout.splitlines()

    assert lines[0].startswith("bob@x.org is held by ")
    assert lines[0].endswith(": wrong link.")
    assert any(line.startswith("eve@y.org is due since") and "no worker is alive" in line for line in lines)
    bob, eve = _json(run("explain", "--json", queue_id))
    assert (bob["blocker"], eve["blocker"]) == ("held", "no worker")
    assert (bob["taken_next"], bob["next_attempt_at"]) == (False, None)
    assert eve["expires_at"] is not None


def test_the_audit_says_who_did_what_and_why(run: Run) -> None:
    _send(run, "--to", "bob@x.org")
    run("hold", "--yes", "--domain", "x.org", "--reason", "wrong link")
    run("release", "--yes", "--all")
    run("suspend", "x.org")

    rows = run("audit").stdout.splitlines()[1:]
    told = [("suspend", "pattern=nexthop:x.org"), ("release", "everything"), ("hold", "domain=x.org: wrong link")]
    for row, (action, what) in zip(rows, told, strict=True):
        assert f" {action} " in row
        assert row.endswith(what)
    entries = _json(run("audit", "--json"))
    assert [(one["action"], one["counted"], one["touched"]) for one in entries] == [
        ("suspend", None, 0),
        ("release", 1, 1),
        ("hold", 1, 1),
    ]
    assert "@" in entries[0]["actor"]
    assert entries[2]["selector"] == {"domain": "x.org"}
    assert entries[2]["reason"] == "wrong link"
    assert [one["action"] for one in _json(run("audit", "--json", "--since", "1h", "--limit", "1"))] == ["suspend"]
