"""What the command line says of mail in doubt and in quarantine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailq.cli import main
from mailq.queue.certainty import Quarantine, SetAside
from mailq.queue.store import Store
from tests.fakes.queue_values import a_message, deferred, finish, recipients_of, stumbled, take, uncertain


@pytest.fixture
def queue(tmp_path: Path, sqlite_template: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    (tmp_path / "queue.db").write_bytes(sqlite_template)
    url = f"sqlite:///{tmp_path}/queue.db"
    monkeypatch.setenv("MAILQ_DATABASE_URL", url)
    monkeypatch.setenv("COLUMNS", "200")
    opened = Store.open(url)
    yield opened
    opened.close()


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert 0 == result.exit_code, result.output
    return result.stdout


def test_mail_in_doubt_is_listed_and_once_it_is_clear_only_where_the_past_is_asked_for(queue: Store) -> None:
    held, cleared = queue.insert([a_message("a@far.test"), a_message("b@far.test")])
    lease = take(queue)
    one, two = recipients_of(lease)
    finish(queue, [uncertain(one, SetAside()), uncertain(two)], lease)
    lease = take(queue)
    finish(queue, [deferred(each) for each in recipients_of(lease)], lease)
    now, ever = run("uncertain"), run("uncertain", "--ever")
    assert (True, False) == (held in now, cleared in now)
    assert (True, True) == (held in ever, cleared in ever)
    assert run("list", "--uncertain") == now
    assert "it may have been sent" in run("show", held)


def test_mail_in_quarantine_shows_where_we_failed_and_what_to_do(queue: Store) -> None:
    (queue_id,) = queue.insert([a_message("a@far.test")])
    lease = take(queue)
    finish(queue, [stumbled(each, Quarantine()) for each in recipients_of(lease)], lease)
    assert queue_id in run("list", "--state", "quarantined")
    shown = run("show", queue_id)
    assert "    ours.py:7 in render" in shown
    assert "mailq release" in shown
