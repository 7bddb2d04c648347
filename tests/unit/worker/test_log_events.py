"""The table of events says what the code logs."""

import ast
import logging
from pathlib import Path

import mailq
from mailq.queue.record import outcome_word
from mailq.status import RecipientId
from mailq.worker.log_events import EVENTS, OUTCOME_FIELDS
from mailq.worker.outcome_log import log_outcome
from tests.fakes.queue_values import bounced, deferred, expired, sent

CODE = Path(mailq.__file__).parent


def words_of(node: ast.AST) -> set[str]:
    """The names of events in the value of a dictionary's "event"."""
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def test_every_event_that_the_code_names_is_in_the_table_with_its_fields():
    found: dict[str, set[str]] = {}
    for path in CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Dict):
                continue
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "event" and "/worker/" in str(path):
                    found |= {word: keys - {"event"} for word in words_of(value)}
    named = {word: fields for word, fields in found.items() if word in EVENTS or "_" in word or word == "unrecorded"}
    assert {name: set(one.fields) for name, one in EVENTS.items() if one.fields != OUTCOME_FIELDS} == named


def test_an_outcome_logs_the_fields_of_the_table(caplog):
    from mailq.envelope import Recipient  # noqa: PLC0415 - beside its only use

    recipient = Recipient(id=RecipientId(1), address="ann@example.org")
    with caplog.at_level(logging.INFO, "mailq.outcome"):
        for result in (
            sent(RecipientId(1)),
            deferred(RecipientId(1)),
            bounced(RecipientId(1)),
            expired(RecipientId(1)),
        ):
            log_outcome("Q1", "example.org", recipient, result, lease_id=7)
    plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    assert ["sent", "deferred", "bounced", "expired"] == [one.event for one in caplog.records]
    for one in caplog.records:
        assert {"event", *OUTCOME_FIELDS} == set(vars(one)) - plain
        assert 7 == one.lease
        assert EVENTS[one.event].level == one.levelname.lower()


def test_every_outcome_word_is_an_event():
    assert {outcome_word(sent(RecipientId(1)))} <= EVENTS.keys()
    assert {"sent", "deferred", "bounced", "expired", "held", "quarantined", "uncertain"} <= EVENTS.keys()
