"""What follows when nobody knows whether mail was sent, and when it makes us stumble."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailq.errors import SettingError
from mailq.queue.backoff import Disposition, Done, GiveUp, RetryAt
from mailq.queue.certainty import (
    CertaintyRules,
    Quarantine,
    Ruling,
    SetAside,
    UncertainPolicy,
    after_attempt,
    after_loss,
    is_uncertain,
)
from mailq.settings import Settings
from mailq.status import (
    Bounced,
    Deferred,
    Delivered,
    Endpoint,
    EnhancedStatus,
    Failure,
    Outcome,
    Reply,
    Scope,
    Stage,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = RetryAt(NOW + timedelta(minutes=5))
SERVER = Endpoint("mx.test", "192.0.2.1", 25)


def failure(stage: Stage, *, reply: Reply | None = None, status: str = "4.4.2", fault: str = "") -> Failure:
    parsed = EnhancedStatus.parse(status)
    return Failure(status=parsed, reason="why", stage=stage, scope=Scope.SERVER, reply=reply, fault=fault)


UNANSWERED = failure(Stage.END_OF_DATA)
ANSWERED = failure(Stage.END_OF_DATA, reply=Reply(451, ("451 4.3.0 later",)), status="4.3.0")
REFUSED = failure(Stage.RCPT, reply=Reply(550, ("550 5.1.1 no",)), status="5.1.1")
TAKEN = Delivered(SERVER, Reply(250, ("250 2.0.0 ok",)))
STUMBLE = Deferred(failure(Stage.POLICY, fault="a.py:1 in f"))


@pytest.mark.parametrize(
    ("expected", "outcome"),
    [
        (True, Deferred(UNANSWERED)),
        (True, Deferred(failure(Stage.CONNECT), (UNANSWERED,))),
        (True, Bounced(REFUSED, (UNANSWERED,))),
        (False, Deferred(ANSWERED)),
        (False, Deferred(failure(Stage.BODY))),
        (False, Deferred(failure(Stage.QUIT))),
        (False, Bounced(REFUSED)),
        (False, TAKEN),
        (False, Delivered(SERVER, Reply(250, ("250 2.0.0 ok",)), earlier=(UNANSWERED,))),
    ],
)
def test_uncertain_is_what_some_server_got_the_end_of_and_never_answered(*, expected: bool, outcome: Outcome) -> None:
    """Source: smtp-delivery T-36 to T-39."""
    assert expected is is_uncertain(outcome)


@pytest.mark.parametrize(
    ("expected", "policy"),
    [(LATER, "retry"), (SetAside(), "hold"), (Done(), "assume-sent")],
)
def test_the_policy_decides_about_what_may_have_been_sent(expected: Ruling, policy: str) -> None:
    rules = CertaintyRules(policy=UncertainPolicy(policy))
    assert expected == after_attempt(Deferred(UNANSWERED), LATER, mail_class="", stumbles=0, rules=rules)


@pytest.mark.parametrize(
    ("outcome", "disposition"),
    [
        (Deferred(ANSWERED), LATER),
        (TAKEN, Done()),
        (Bounced(REFUSED), GiveUp(expired=False)),
        (Bounced(REFUSED, (UNANSWERED,)), GiveUp(expired=False)),
    ],
)
def test_the_policy_changes_nothing_about_what_a_server_has_decided(outcome: Outcome, disposition: Disposition) -> None:
    rules = CertaintyRules(policy=UncertainPolicy.HOLD)
    assert disposition == after_attempt(outcome, disposition, mail_class="", stumbles=0, rules=rules)


def test_an_uncertain_message_is_held_rather_than_returned_when_its_time_is_over() -> None:
    rules = CertaintyRules(policy=UncertainPolicy.HOLD)
    ruling = after_attempt(Deferred(UNANSWERED), GiveUp(expired=True), mail_class="", stumbles=0, rules=rules)
    assert SetAside() == ruling


def test_a_class_of_mail_has_a_policy_of_its_own() -> None:
    settings = Settings(uncertain_policy="hold", uncertain_policies=("receipts=assume-sent", "password = retry"))
    rules = CertaintyRules.of(settings)
    assert [Done(), LATER, SetAside(), SetAside()] == [
        after_attempt(Deferred(UNANSWERED), LATER, mail_class=name, stumbles=0, rules=rules)
        for name in ("receipts", "password", "newsletter", "")
    ]


@pytest.mark.parametrize("entry", ["receipts", "receipts=", "=hold", "receipts=maybe", ""])
def test_a_policy_that_cannot_be_meant_is_refused_by_the_name_of_its_setting(entry: str) -> None:
    with pytest.raises(SettingError, match=r"uncertain_policies.*class=policy.*retry, hold, assume-sent"):
        CertaintyRules.of(Settings(uncertain_policies=(entry,)))


@pytest.mark.parametrize(
    ("expected", "stumbles"),
    [(LATER, 0), (LATER, 1), (Quarantine(), 2), (Quarantine(), 7)],
)
def test_the_third_stumble_in_a_row_is_quarantine(expected: Ruling, stumbles: int) -> None:
    assert expected == after_attempt(STUMBLE, LATER, mail_class="", stumbles=stumbles, rules=CertaintyRules())


def test_what_does_not_stumble_is_never_quarantined() -> None:
    assert LATER == after_attempt(Deferred(ANSWERED), LATER, mail_class="", stumbles=9, rules=CertaintyRules())


def test_what_stumbles_and_is_too_old_is_returned() -> None:
    over = GiveUp(expired=True)
    assert over == after_attempt(STUMBLE, over, mail_class="", stumbles=9, rules=CertaintyRules())


def lost(stumbles: int = 0, *, chance: float = 0.5, **rules: Any) -> Ruling:
    spread = timedelta(seconds=60)
    given = CertaintyRules(spread=spread, **rules)
    return after_loss(mail_class="", stumbles=stumbles, now=NOW, chance=chance, rules=given)


@pytest.mark.parametrize(
    ("expected", "policy"),
    [(SetAside(), UncertainPolicy.HOLD), (Done(), UncertainPolicy.ASSUME_SENT)],
)
def test_the_policy_decides_about_what_a_lost_worker_was_at(expected: Ruling, policy: UncertainPolicy) -> None:
    assert expected == lost(policy=policy)


@pytest.mark.parametrize(
    ("seconds", "stumbles", "chance"),
    [(0, 0, 0.0), (30, 0, 0.5), (60, 0, 1.0), (60, 1, 0.5), (120, 1, 1.0)],
)
def test_what_lost_workers_were_at_comes_back_spread_ever_wider(seconds: float, stumbles: int, chance: float) -> None:
    """So that the one which ends workers is soon alone in doing so."""
    assert RetryAt(NOW + timedelta(seconds=seconds)) == lost(stumbles, chance=chance)


def test_the_third_worker_lost_over_a_message_puts_it_in_quarantine() -> None:
    """Source: smtp-delivery Q-45."""
    assert [RetryAt, RetryAt, Quarantine] == [type(lost(stumbles)) for stumbles in range(3)]


def test_one_stumble_may_be_enough() -> None:
    assert Quarantine() == lost(0, quarantine_after=1)
