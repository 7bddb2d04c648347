"""The fingerprint that tells whether two messages under one key are the same."""

from dataclasses import replace

import pytest

from mailq.queue.messages import NewMessage
from tests.fakes.queue_values import a_message

MESSAGE = a_message("bob@far.test", "eve@far.test")


@pytest.mark.parametrize(
    "other",
    [
        replace(MESSAGE, sender="bob@home.test"),
        replace(MESSAGE, content=MESSAGE.content + b"\r\n"),
        a_message("bob@far.test"),
        a_message("bob@far.test", "eve@near.test"),
    ],
)
def test_another_sender_recipient_or_content_is_another_message(other: NewMessage) -> None:
    assert MESSAGE.fingerprint != other.fingerprint


def test_tags_and_priority_do_not_make_another_message() -> None:
    assert MESSAGE.fingerprint == replace(MESSAGE, priority=9, tags={"a": "b"}).fingerprint


def test_a_given_digest_is_the_fingerprint() -> None:
    assert "d" == replace(MESSAGE, digest="d").fingerprint
