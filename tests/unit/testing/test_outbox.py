"""The outbox keeps what is queued, refuses what a queue refuses, and follows transactions."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from mailq import ContentError, EnvelopeError, IdempotencyConflictError, Queue, Settings, Submission
from mailq.api import default_queue, enqueue
from mailq.queue.states import ShownState
from mailq.testing.outbox import Outbox, outbox

ROOT = Path(__file__).resolve().parents[3]
_MAIL: dict[str, Any] = {"sender": "shop@example.org", "to": ["Ann <Ann@x.org>"], "subject": "Grüße", "text": "Hällo"}


@pytest.fixture
def box() -> Iterator[Outbox]:
    with outbox() as opened:
        yield opened


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue that was there before the outbox."""
    made = Queue(f"sqlite:///{tmp_path}/queue.db", settings=Settings())
    yield made
    made.close()


@pytest.fixture
def connection() -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def kept(box: Outbox) -> list[str]:
    return [one.subject for one in box]


def test_a_message_can_be_looked_at_from_all_sides(queue: Queue, box: Outbox) -> None:
    queue_id = queue.send(**_MAIL, html="<p>Hällo", tags={"order": "7"}, priority=2)

    (message,) = box.messages
    assert (queue_id, "shop@example.org", ("Ann@x.org",)) == (message.queue_id, message.sender, message.recipients)
    assert ("Grüße", "Hällo", "<p>Hällo") == (message.subject, message.text.strip(), message.html.strip())
    assert b"\r\n\r\n" in message.content
    assert ({"order": "7"}, 2) == (message.view.tags, message.view.priority)
    assert [message] == box.to("ann@X.org")
    assert [] == box.to("bob@x.org")


def test_the_queues_own_verbs_answer_from_the_outbox(queue: Queue, box: Outbox) -> None:
    queue_id = queue.send(**_MAIL)

    assert {"Ann@x.org": ShownState.QUEUED} == queue.status(queue_id)
    assert 1 == queue.hold(queue_ids=[queue_id]).touched
    assert {"Ann@x.org": ShownState.HELD} == box.queue.status(queue_id)


def test_the_applications_database_gets_nothing(queue: Queue) -> None:
    with outbox():
        queue.send(**_MAIL)
        Queue(queue.settings.database_url, settings=Settings()).send(**_MAIL)

    assert [] == queue.find()


def test_the_default_queue_is_kept_too(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILQ_DATABASE_URL", "sqlite:////nowhere/queue.db")
    default_queue.cache_clear()
    enqueue(**_MAIL)
    default_queue.cache_clear()

    assert ["Grüße"] == kept(box)


def test_a_database_in_memory_will_do_while_the_outbox_is_open(box: Outbox) -> None:
    Queue("sqlite://", settings=Settings()).send(**_MAIL)

    assert ["Grüße"] == kept(box)


def test_what_a_queue_refuses_is_refused(queue: Queue, box: Outbox, connection: sqlalchemy.Connection) -> None:
    with pytest.raises(ContentError):
        queue.send(b"no header", recipients=["a@x.org"], sender="")
    with pytest.raises(EnvelopeError):
        queue.send(**_MAIL | {"to": []})
    with pytest.raises(EnvelopeError, match="connection is a Connection or Session"):
        queue.send(**_MAIL, connection=connection.engine)  # type: ignore[arg-type]  # that is the test
    queue.send(**_MAIL, idempotency_key="1")
    with pytest.raises(IdempotencyConflictError):
        queue.send(**_MAIL | {"text": "Other"}, idempotency_key="1")

    assert 1 == len(box)


def test_of_two_outboxes_the_inner_one_gets_it(queue: Queue, box: Outbox) -> None:
    with outbox() as inner:
        queue.send(**_MAIL)
        assert ["Grüße"] == kept(inner)
    queue.send(**_MAIL | {"subject": "Second"})

    assert ["Second"] == kept(box)


def test_clearing_forgets_all(queue: Queue, box: Outbox) -> None:
    queue.send_many([Submission(**_MAIL)] * 3)
    box.clear()
    assert 0 == len(box)
    queue.send(**_MAIL)
    assert 1 == len(box)


def test_a_rollback_takes_the_message_back(queue: Queue, box: Outbox, connection: sqlalchemy.Connection) -> None:
    queue.send(**_MAIL, connection=connection)
    assert 1 == len(box)
    connection.rollback()
    assert 0 == len(box)
    queue.send(**_MAIL, connection=connection)
    connection.commit()
    connection.rollback()
    assert 1 == len(box)


def test_closing_without_a_commit_takes_it_back(queue: Queue, box: Outbox, connection: sqlalchemy.Connection) -> None:
    with Session(connection.engine) as session:
        queue.send(**_MAIL, connection=session)
        assert 1 == len(box)
    assert 0 == len(box)


def test_a_savepoint_takes_back_what_was_sent_in_it(queue: Queue, box: Outbox) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with Session(engine) as session:
        queue.send(**_MAIL | {"subject": "outside"}, connection=session)
        with session.begin_nested() as outer:
            queue.send(**_MAIL | {"subject": "outer"}, connection=session)
            with session.begin_nested():
                queue.send(**_MAIL | {"subject": "released"}, connection=session)
            assert ["outside", "outer", "released"] == kept(box)
            outer.rollback()
        with session.begin_nested():
            queue.send(**_MAIL | {"subject": "kept"}, connection=session)
        session.commit()
    engine.dispose()

    assert ["outside", "kept"] == kept(box)


def test_a_key_that_was_used_before_is_not_taken_back(
    queue: Queue, box: Outbox, connection: sqlalchemy.Connection
) -> None:
    queue.send(**_MAIL, idempotency_key="1")
    queue.send(**_MAIL, idempotency_key="1", connection=connection)
    connection.rollback()

    assert 1 == len(box)


def test_a_connection_that_commits_each_statement_takes_nothing_back(queue: Queue, box: Outbox) -> None:
    engine = sqlalchemy.create_engine("sqlite://", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        queue.send(**_MAIL, connection=connection.execution_options(isolation_level="AUTOCOMMIT"))
    engine.dispose()

    assert 1 == len(box)


_TESTS = """
import sys

def test_nothing_slow_is_loaded_before_a_fixture_asks():
    assert "sqlalchemy" not in sys.modules

def test_the_outbox(mailq):
    from mailq import enqueue
    enqueue(sender="a@x.org", to=["b@y.org"], subject="Hello", text="x")
    assert ["Hello"] == [one.subject for one in mailq.messages]

def test_it_is_empty_again(mailq):
    assert 0 == len(mailq)

def test_delivered(mailq_immediate, tmp_path):
    from mailq import Queue, Settings
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", settings=Settings(myhostname="a.test"))
    queue_id = queue.send(sender="a@x.org", to=["b@y.org"], subject="Hello", text="x")
    assert {"b@y.org": "sent"} == queue.status(queue_id)
    assert ["Hello"] == [one["Subject"] for one in mailq_immediate.messages]
    queue.close()
"""


def test_the_fixtures_of_the_plugin_work(tmp_path: Path) -> None:
    (tmp_path / "test_application.py").write_text(_TESTS, encoding="utf-8")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "mailq.testing.pytest_plugin"),
            *("-p", "no:cacheprovider", str(tmp_path)),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "4 passed" in run.stdout, run.stdout + run.stderr
