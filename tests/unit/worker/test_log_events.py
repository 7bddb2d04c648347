"""The table of events says what the code logs."""

import ast
import logging
from dataclasses import replace
from pathlib import Path

import mailq
from mailq.envelope import Recipient
from mailq.queue.record import outcome_word
from mailq.status import RecipientId
from mailq.worker.log_events import EVENTS, OUTCOME_FIELDS
from mailq.worker.outcome_log import log_outcomes
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
    recipient = Recipient(id=RecipientId(1), address="ann@example.org")
    with caplog.at_level(logging.INFO, "mailq.outcome"):
        for result in (
            sent(RecipientId(1)),
            deferred(RecipientId(1)),
            bounced(RecipientId(1)),
            expired(RecipientId(1)),
        ):
            log_outcomes("Q1", "example.org", [result], {recipient.id: recipient}, lease_id=7)
    plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    assert ["sent", "deferred", "bounced", "expired"] == [one.event for one in caplog.records]
    for one in caplog.records:
        assert {"event", *OUTCOME_FIELDS} == set(vars(one)) - plain
        assert 7 == one.lease
        assert EVENTS[one.event].level == one.levelname.lower()


def test_recipients_of_one_transaction_each_have_an_event_like_that_of_one_alone(caplog):
    numbers = [RecipientId(number) for number in range(4)]
    people = {number: Recipient(id=number, address=f"r{number}@example.org") for number in numbers}
    taken = sent(numbers[0])
    results = [*(replace(taken, recipient_id=number) for number in numbers[:3]), deferred(numbers[3])]
    with caplog.at_level(logging.INFO, "mailq.outcome"):
        log_outcomes("Q1", "example.org", results, people, lease_id=7)
        together = list(caplog.records)
        caplog.clear()
        for result in results:
            log_outcomes("Q1", "example.org", [result], people, lease_id=7)
    assert [one.getMessage() for one in caplog.records] == [one.getMessage() for one in together]
    times = {"created", "msecs", "relativeCreated", "asctime"}
    for alone, one in zip(caplog.records, together, strict=True):
        assert {k: v for k, v in vars(alone).items() if k not in times} == {
            k: v for k, v in vars(one).items() if k not in times
        }
    assert [f"r{number}@example.org" for number in range(4)] == [one.recipient for one in together]
    assert "sent Q1 to=<r2@example.org> relay=" in together[2].getMessage()


def test_every_outcome_word_is_an_event():
    assert {outcome_word(sent(RecipientId(1)))} <= EVENTS.keys()
    assert {"sent", "deferred", "bounced", "expired", "held", "quarantined", "uncertain"} <= EVENTS.keys()
