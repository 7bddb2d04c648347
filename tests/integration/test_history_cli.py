"""``mailq history``, and what happens to mail whose content cannot be read."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailq.cli import main
from mailq.delivery.ports import Ports
from mailq.queue.history import HistoryQuery
from mailq.queue.objects import ObjectStore
from mailq.queue.store import Store
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import NEXTHOP, TAKEN, Bench
from tests.fakes.queue_values import a_message, bounced, deferred, finish, recipients_of, sent, take


@pytest.fixture
def store(sqlite_url: str) -> Store:
    return Store.open(sqlite_url)


@pytest.fixture
def run(sqlite_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAILQ_DATABASE_URL", sqlite_url)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return invoke


def attempt(store: Store, address: str, result=sent) -> str:
    (queue_id,) = store.insert([a_message(address)])
    lease = take(store, address.rpartition("@")[2])
    finish(store, [result(one) for one in recipients_of(lease)], lease)
    return queue_id


def test_attempts_are_listed_the_newest_first(store: Store, run) -> None:
    first, second = attempt(store, "bob@far.test"), attempt(store, "eve@far.test", bounced)
    lines = run("history").stdout.splitlines()
    assert [second, first] == [line.split()[2] for line in lines[1:]]
    assert "550 5.1.1 no such" in lines[1]


def test_a_search_gives_what_matches_as_json_line_by_line(store: Store, run) -> None:
    for address in ("bob@far.test", "eve@far.test", "bob@other.test"):
        attempt(store, address)
    found = [json.loads(line) for line in run("history", "--domain", "far.test", "--json").stdout.splitlines()]
    assert ["eve@far.test", "bob@far.test"] == [one["recipient"] for one in found]
    assert [250, 250] == [one["attempt"]["reply_code"] for one in found]


def test_more_than_the_limit_is_told(store: Store, run) -> None:
    for number in range(3):
        attempt(store, f"r{number}@far.test")
    result = run("history", "--limit", "2")
    assert 3 == len(result.stdout.splitlines())
    assert "There are more than 2" in result.stderr
    assert 4 == len(run("history", "--limit", "0").stdout.splitlines())


def test_times_and_transcript_are_shown_when_asked_for(store: Store, run) -> None:
    attempt(store, "bob@far.test", deferred)
    assert "    queue: 0 ms" in run("history", "--transcript").stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--status", "seven"), "a status is three numbers"),
        (("--code", "20"), "a reply code is between"),
        (("--recipient", "nobody@@"), "mailq:"),
    ],
)
def test_what_cannot_be_searched_for_is_said(store: Store, run, arguments, words) -> None:
    assert words in run("history", *arguments).stderr


def test_nothing_found_is_said(store: Store, run) -> None:
    assert "No attempts." in run("history").stderr
    assert "No attempt matches." in run("history", "--text", "x").stderr


def test_mail_whose_content_is_gone_waits_and_says_why(sqlite_url: str, tmp_path: Path) -> None:
    place = tmp_path / "content"
    store = Store.open(sqlite_url, objects=ObjectStore(place.as_uri(), threshold_bytes=10))
    bench = Bench(store)

    def read(request, _on_settled):
        ports: Ports = bench.runtime.ports
        with ports.bodies.open(request.queue_id) as stream:
            stream.read()
        return {recipient.id: TAKEN for recipient in request.recipients}

    bench.answer = read
    lost, kept = bench.queue(["a@dest.test"], ["b@dest.test"])
    objects = {one.read_bytes(): one for one in place.rglob("*.eml")}
    assert 1 == len(objects)
    for file in sorted(place.rglob("*.eml"))[:1]:
        file.unlink()
    assert 2 == serve_nexthop(NEXTHOP, bench.runtime)
    states = sorted(store.show(one).recipients[0].state.value for one in (lost, kept))
    assert ["deferred", "sent"] == states
    (entry,) = store.history(HistoryQuery(outcome="deferred"), limit=9)
    assert ("4.3.0", True) == (entry.attempt.status, "is gone" in entry.attempt.reason)
    assert 0 == store.purge(older_than=timedelta(days=1), limit=9)
    store.close()
