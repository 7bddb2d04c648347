"""A log line has the form that was asked for, and no more of addresses than was."""

import json
import logging

import pytest
from celery.signals import after_setup_logger

from mailq.settings import Settings
from mailq.worker.logs import Lines, worker_logs


def record(message="hello", *arguments, **fields):
    one = logging.LogRecord("mailq.outcome", logging.INFO, "x.py", 1, message, arguments, None)
    vars(one).update(fields)
    return one


def test_json_has_the_event_its_fields_and_the_text():
    line = Lines("json").format(record("sent %s", "Q1", event="sent", queue_id="Q1", lease=7, earlier=["no"]))
    found = json.loads(line)
    assert "\n" not in line
    assert found.pop("at").endswith("+00:00")
    assert {
        "level": "info",
        "logger": "mailq.outcome",
        "event": "sent",
        "message": "sent Q1",
        "queue_id": "Q1",
        "lease": 7,
        "earlier": ["no"],
    } == found


def test_a_record_that_is_no_event_has_an_empty_one():
    assert "" == json.loads(Lines("json").format(record()))["event"]


def test_a_line_break_in_a_text_makes_no_second_line():
    assert 1 == len(Lines("json").format(record("one\ntwo")).splitlines())


def test_a_traceback_is_a_field():
    one = record("failed")
    error = ValueError("odd <ann@example.org>")
    one.exc_info = (type(error), error, None)
    found = json.loads(Lines("json", "none").format(one))
    assert "ValueError: odd <***>" in found["traceback"]


def test_a_value_json_does_not_know_is_told_as_text():
    assert "Q1" == json.loads(Lines("json").format(record(thing=type("T", (), {"__str__": lambda _: "Q1"})())))["thing"]


def test_text_is_a_line_for_people():
    assert Lines("text").format(record("hello %s", "you")).endswith(" INFO mailq.outcome: hello you")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "address",
    [
        "ann@example.org",
        "ann.o'neil+tag@mail.example.org",
        '"ann"@example.org',
        "bounce+ann=customer.example@example.org",
        "jörg@bücher.example",
        "ann@[192.0.2.1]",
        "user!ann%host@example.org",
    ],
)
def test_no_part_of_an_address_is_left_where_none_is_wanted(form, address):
    one = record("to=<%s> 550 5.1.1 <%s>: no such user", address, address, recipient=address)
    line = Lines(form, "none").format(one)
    assert "@" not in line
    assert "ann" not in line
    assert "jörg" not in line


def test_the_domain_stays_where_that_is_wanted():
    assert Lines("text", "domain").format(record("to=<ann@example.org>: ok")).endswith("to=<***@example.org>: ok")


def test_json_stays_json_whatever_is_taken_out():
    fields = {"recipient": '"a b"@example.org', "reason": 'say "x@y.test", or <"q"@z.test>'}
    found = json.loads(Lines("json", "domain").format(record("for %s", "ann@example.org", **fields)))
    assert "for ***@example.org" == found["message"]
    assert 'say "***@y.test", or <***@z.test>' == found["reason"]
    assert "***@example.org" == found["recipient"]


def test_full_leaves_the_line_alone():
    assert "ann@example.org" in Lines("json").format(record("to=<ann@example.org>"))


def test_a_worker_logs_as_its_settings_say_and_only_while_it_runs():
    logger = logging.getLogger("mailq.test_logs")
    logger.handlers = [logging.StreamHandler()]
    before = logger.handlers[0].formatter
    with worker_logs(Settings(log_format="json", log_addresses="none")):
        after_setup_logger.send(sender=None, logger=logger)
    dressed = logger.handlers[0].formatter
    assert isinstance(dressed, Lines)
    assert "***" == json.loads(dressed.format(record("a@b.test")))["message"]
    logger.handlers[0].setFormatter(before)
    after_setup_logger.send(sender=None, logger=logger)
    assert before is logger.handlers[0].formatter


def test_where_settings_say_nothing_celerys_form_stays():
    logger = logging.getLogger("mailq.test_logs")
    logger.handlers = [logging.StreamHandler()]
    with worker_logs(Settings()):
        after_setup_logger.send(sender=None, logger=logger)
    assert None is logger.handlers[0].formatter
