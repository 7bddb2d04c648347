"""How long servers want us to stay away, in the words they use."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.queue.named_wait import LONGEST, named_wait, wait_in
from mailq.status import Failure, Reply, Scope, Stage

NAMED = [
    # Postgrey, and those who took its words over
    ("4.2.0 <bob@far.test>: Recipient address rejected: Greylisted, see http://postgrey.far.test/help/far.test", None),
    ("4.2.0 <bob@far.test>: Recipient address rejected: Greylisted for 300 seconds", 300),
    ("4.2.0 <bob@far.test>: Recipient address rejected: Greylisted for 1 minutes (see http://far.test/help)", 60),
    ("4.7.1 Greylisting in action, please try again in 00:04:38", 278),
    ("4.7.1 Greylisting in action, please come back in 00:05:00", 300),
    ("4.7.1 Greylisting in action, please come back in 01:00:00", 3600),
    # rspamd, SQLgrey, policyd, Exim and other recipes
    ("4.7.1 Try again later, greylisted for 4 minutes", 240),
    ("Greylisted for 5 minutes", 300),
    ("Greylisted for 4 minutes and 30 seconds", 270),
    ("greylisted - try again in 5 mins", 300),
    ("Policy Rejection- Please try later; retry in 12 minutes.", 720),
    ("4.7.0 Temporarily deferred, please retry after 5 minutes", 300),
    ("4.7.1 Service unavailable - try again in 300 seconds", 300),
    ("4.7.1 You have been greylisted, retry after 280s", 280),
    ("deferred, try again in 1h30m", 5400),
    ("greylisting: try again in 1 h 30 min", 5400),
    ("4.3.2 please try again in an hour", 3600),
    ("4.3.2 please try again in one minute", 60),
    ("4.7.1 GREYLISTED: TRY AGAIN IN 15 MINUTES", 900),
    ("4.7.1 graylisted; come back after 180 sec", 180),
    ("4.7.0 greylist=280", 280),
    ("4.7.0 Retry-After: 600", 600),
    ("4.7.0 delay: 120", 120),
    # Microsoft, Google, Yahoo and others
    ("4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation (S775)", None),
    ("4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719) [x.prod.outlook.test]", None),
    ("4.3.2 STOREDRV.Deliver; delivery throttled, retry in 3 minutes", 180),
    ("4.2.1 The user you are trying to contact is receiving mail at a rate that prevents more. try again later", None),
    ("4.7.28 Our system has detected an unusual rate of mail; retry in 1 hour", 3600),
    (
        "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints - 4.16.55.1; see https://x",
        None,
    ),
    ("too many messages, slow down: wait 2 minutes before trying again", 120),
    # Numbers that are not waits
    ("4.5.3 try again later: 500 recipients are too many", None),
    ("mailbox of 300 MB is full, try again later", None),
    ("quota 5 m exceeded", None),
    ("limit is 100 per 60 seconds", None),
    ("4.7.1 greylisted, contact postmaster at +49 30 1234567", None),
    ("please try again from 192.0.2.30 seconds-counter", None),
    ("try again, error 10:20", None),
    ("try again at 12:30:45:99", None),
    # Hostile ones
    ("try again in 0 seconds", None),
    ("try again in 99999999999999999999 seconds", None),
    ("try again in 999999 hours", None),
    ("try again in 25 hours", None),
    ("try again in -300 seconds", None),
    ("try again in 24 hours", 86_400),
    ("try again in 23:59:59", 86_399),
    ("try again in 99:59:59", None),
    ("try again in 300.9 seconds", 300),
    ("try again in ٣٠٠ seconds", None),
    ("try again in " + "9" * 5000 + " seconds", None),
    ("x" * 5000 + " try again in 300 seconds", None),
    ("try again in 5 minutes, then in 10 minutes", 300),
    ("", None),
]


@pytest.mark.parametrize(("text", "seconds"), NAMED)
def test_the_wait_is_read_from_the_words(text: str, seconds: int | None) -> None:
    """Source: smtp-delivery Q-55."""
    assert (None if seconds is None else timedelta(seconds=seconds)) == wait_in(text)


@given(st.text(max_size=300) | st.from_regex(r"(try again|greylisted) (in|for) [0-9:]{1,12} ?(s|min|hours)?"))
def test_any_words_give_no_wait_or_one_within_a_day(text: str) -> None:
    wait = wait_in(text)
    assert wait is None or timedelta(seconds=1) <= wait <= LONGEST


def a_failure(code: int, stage: Stage, text: str = "greylisted for 300 seconds") -> Failure:
    reply = Reply(code, (f"{code}-{code // 100}.7.1 hello", f"{code} {text}"))
    return Failure(status=reply.status, reason=reply.text, stage=stage, scope=Scope.RECIPIENT, reply=reply)


@pytest.mark.parametrize(
    ("code", "stage", "seconds"),
    [
        (450, Stage.RCPT, 300),
        (451, Stage.DATA, 300),
        (421, Stage.END_OF_DATA, 300),
        (550, Stage.RCPT, None),
        (450, Stage.MAIL, None),
        (421, Stage.GREETING, None),
        (450, Stage.AUTH, None),
    ],
)
def test_only_a_transient_reply_about_recipient_or_content_names_a_wait(
    code: int, stage: Stage, seconds: int | None
) -> None:
    assert (None if seconds is None else timedelta(seconds=seconds)) == named_wait(a_failure(code, stage))


def test_a_failure_without_a_reply_names_no_wait() -> None:
    failure = a_failure(450, Stage.RCPT)
    own = Failure(status=failure.status, reason=failure.reason, stage=failure.stage, scope=failure.scope)
    assert named_wait(own) is None
