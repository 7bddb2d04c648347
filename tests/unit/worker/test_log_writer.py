"""A worker's log, written by one thread."""

import io
import logging
import threading
from collections.abc import Iterator

import pytest

from mailq.worker.log_writer import written_by_one_thread


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.Logger("of a test")  # noqa: LOG001 - nobody else may have its handlers
    yield logger
    logger.handlers.clear()


class Slow(io.StringIO):
    """A stream that notes which thread writes, and can be made to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()
        self.writes = 0
        self.go = threading.Event()
        self.go.set()

    def write(self, text: str) -> int:
        assert self.go.wait(10)
        self.threads.add(threading.current_thread().name)
        self.writes += 1
        return super().write(text)


def test_lines_are_written_by_one_thread_in_their_order_and_all_by_the_end(logger: logging.Logger) -> None:
    stream = Slow()
    logger.addHandler(logging.StreamHandler(stream))
    stream.go.clear()
    with written_by_one_thread(logger):
        for number in range(100):
            logger.info("line %d", number)
        stream.go.set()
    assert [f"line {number}" for number in range(100)] == stream.getvalue().splitlines()
    assert {"mailq-log"} == stream.threads
    assert stream.writes < 20


def test_a_handlers_level_filter_and_form_hold(logger: logging.Logger) -> None:
    stream = Slow()
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(nexthop)s"))
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.addHandler(handler)
    with written_by_one_thread(logger):
        logger.info("no", extra={"nexthop": "a"})
        for text in ("one", "secret", "two"):
            logger.warning(text, extra={"nexthop": "a"})
    assert ["WARNING one a", "WARNING two a"] == stream.getvalue().splitlines()


def test_a_line_that_cannot_be_formatted_ends_nothing(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Slow()
    logger.addHandler(logging.StreamHandler(stream))
    with written_by_one_thread(logger):
        logger.info("%d", "no number")
    with written_by_one_thread(logger):
        logger.info("after")
    assert "after\n" == stream.getvalue()
    assert "no number" in capsys.readouterr().err


def test_the_handlers_are_the_loggers_own_again_afterwards(logger: logging.Logger) -> None:
    handler = logging.StreamHandler(Slow())
    logger.addHandler(handler)
    with written_by_one_thread(logger):
        assert [handler] != logger.handlers
    assert [handler] == logger.handlers
