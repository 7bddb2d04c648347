"""What a sender asks of reports."""

import pytest

from mailq.dsn.options import notify_by_recipient
from mailq.envelope import Notify
from mailq.errors import EnvelopeError

NAMES = ["a@far.test", "b@far.test"]


def test_a_wish_without_a_name_is_for_everybody() -> None:
    both = frozenset({Notify.SUCCESS, Notify.DELAY})
    assert dict.fromkeys(NAMES, both) == notify_by_recipient(["Success", Notify.DELAY], NAMES)


def test_a_wish_with_a_name_is_for_that_recipient() -> None:
    """Source: smtp-delivery B-31."""
    found = notify_by_recipient({"a@FAR.test": ["never"]}, NAMES)
    assert {"a@far.test": {Notify.NEVER}, "b@far.test": frozenset()} == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["never", "failure"], "NEVER stands alone"),
        (["often"], "notify is one of NEVER, SUCCESS, FAILURE, DELAY, not 'often'"),
        ([7], "not 7"),
        ({"c@far.test": ["failure"]}, "no recipient of the message"),
        ({"a@far.test": ["never", "delay"]}, "NEVER stands alone"),
    ],
)
def test_a_wish_that_cannot_be_meant_is_refused(given, said: str) -> None:
    with pytest.raises(EnvelopeError, match=said):
        notify_by_recipient(given, NAMES)
