"""How long a server that puts mail off wants us to stay away, where it says so. Pure.

Greylisting servers and some rate limits name the wait in words: *greylisted
for 300 seconds*, *try again in 5 minutes*, *retry after 00:04:38*. Such a
reply to RCPT TO, DATA or the final dot is worth more than any schedule: a retry before is
wasted, one long after is late.

Only a 4xx reply counts, only after a word that asks to come back, and only
the first number after it that has a unit or the form of a clock. Whatever is
doubtful is no wait at all: then the schedule holds.

Invariant: any text gives None or a wait between a second and a day; the caller keeps it within its own bounds.

Source: RFC 6647 §5; the replies of postgrey, milter-greylist, rspamd, Exim, SQLgrey, Microsoft and others.
"""

import re
from datetime import timedelta
from typing import Final

from mailq.status import Failure, Stage

LONGEST: Final = timedelta(days=1)
_STAGES: Final = frozenset({Stage.RCPT, Stage.DATA, Stage.END_OF_DATA})
_MOST_TEXT: Final = 2000

# The call to come back; what stands before it (a host, a quota, a policy number) says nothing about time.
_CALL: Final = re.compile(
    r"gr[ea]y-?list\w*|\b(?:re)?try(?:ing)?\b|\bagain\b|\bcome back\b|\bresend\b|\bre-?send\b|\bwait\b"
    r"|\bdelay(?:ed|ing)?\b|\bretry-after\b|\bdeferred\b|\bthrottled\b",
    re.IGNORECASE | re.ASCII,
)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_UNIT: Final = r"(?P<{0}>s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)"
_AMOUNT: Final = re.compile(
    r"(?<![\w.:/\-])(?:"
    r"(?P<hours>\d{1,2}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)"
    r"|(?P<many>\d{1,6})(?:\.\d+)?\s*"
    + _UNIT.format("unit")
    + r"(?:,?\s*(?:and\s*)?(?P<more>\d{1,5})\s*"
    + _UNIT.format("unit_of_more")
    + r")?"
    r")(?![\w:/])",
    re.IGNORECASE | re.ASCII,
)
_ONE: Final = re.compile(
    r"\b(?:in|after|for|about|another)\s+(?:an?|one)\s+(?P<unit>second|minute|hour)\b", re.IGNORECASE | re.ASCII
)
# "greylist=280", "retry-after: 600", "delay 120": a bare number right behind the word is seconds.
_BARE: Final = re.compile(
    r"\b(?:gr[ea]y-?list(?:ed|ing)?|retry[-_ ]?after|delay|wait)\s*[:=(]?\s*(?P<many>\d{1,6})(?![\w.:/\-])",
    re.IGNORECASE | re.ASCII,
)


def named_wait(failure: Failure) -> timedelta | None:
    """Return how long the server of *failure* wants us to wait; None where it does not say, or says nothing usable."""
    if failure.reply is None or not failure.transient or failure.stage not in _STAGES:
        return None
    if not 400 <= failure.reply.code <= 499:  # noqa: PLR2004 - RFC 5321 §4.2.1
        return None
    return wait_in(" ".join(line[4:] for line in failure.reply.lines))


def wait_in(text: str) -> timedelta | None:
    """Return the wait that the words of a reply name; None where they name none."""
    text = text[:_MOST_TEXT]
    call = _CALL.search(text)
    if call is None:
        return None
    seconds = _seconds(text, call.start())
    if seconds is None or not 1 <= seconds <= LONGEST.total_seconds():
        return None
    return timedelta(seconds=seconds)


def _seconds(text: str, start: int) -> int | None:
    amount = _AMOUNT.search(text, start)
    if amount is not None:
        return _of_clock(amount) if amount["hours"] is not None else _of_units(amount)
    one = _ONE.search(text, start)
    if one is not None:
        return _UNITS[one["unit"][0].lower()]
    bare = _BARE.search(text, start)
    return None if bare is None else int(bare["many"])


def _of_clock(amount: re.Match[str]) -> int:
    return int(amount["hours"]) * 3600 + int(amount["minutes"]) * 60 + int(amount["seconds"])


def _of_units(amount: re.Match[str]) -> int:
    seconds = int(amount["many"]) * _UNITS[amount["unit"][0].lower()]
    if amount["more"] is not None:
        seconds += int(amount["more"]) * _UNITS[amount["unit_of_more"][0].lower()]
    return seconds
