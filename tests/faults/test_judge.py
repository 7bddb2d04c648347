"""The judge of the fault trials sees what it is there to see."""

from collections import Counter
from typing import Any

import pytest

from tests.faults.judge import Evidence, Fact, doubts_in, judge
from tests.faults.run import Row, summary, table

SENT = Fact(state="sent")


def evidence(**fields: Any) -> Evidence:
    """What is known when all went well, but for *fields*."""
    known: dict[str, Any] = {
        "committed": {"a@x": 1.0, "b@x": 2.0},
        "doubtful": set(),
        "taken": Counter({"a@x": 1, "b@x": 1}),
        "first_taken_at": {"a@x": 1.5, "b@x": 4.0},
        "facts": {"a@x": SENT, "b@x": SENT},
    }
    return Evidence(**(known | fields))


def test_what_arrived_once_is_good() -> None:
    verdict = judge(evidence())
    assert verdict.good
    assert (2, 2.0) == (verdict.mails, verdict.worst_delay_seconds)


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"taken": Counter({"a@x": 1})}, ("b@x",)),
        ({"facts": {"a@x": SENT}}, ("b@x",)),
        ({"facts": {"a@x": SENT, "b@x": Fact(state="queued", sent=0)}}, ("b@x",)),
        ({"doubtful": {"c@x"}, "facts": {"a@x": SENT, "b@x": SENT, "c@x": SENT}}, ("c@x",)),
    ],
    ids=["never taken", "not in the queue", "not known to be sent", "committed without an answer"],
)
def test_mail_is_lost_when_it_is(fields: dict[str, Any], lost: tuple[str, ...]) -> None:
    assert lost == judge(evidence(**fields)).lost


def test_what_was_rolled_back_is_not_lost() -> None:
    assert judge(evidence(doubtful={"c@x"})).good


def test_a_copy_is_explained_by_as_many_doubts() -> None:
    twice = evidence(
        taken=Counter({"a@x": 3, "b@x": 2}),
        facts={"a@x": Fact(state="sent", attempts=2, recorded=2, doubts=1), "b@x": Fact(state="sent", doubts=1)},
    )
    verdict = judge(twice)
    assert (2, ("a@x",)) == (verdict.explained, verdict.unexplained)


@pytest.mark.parametrize(
    "fields",
    [
        {"taken": Counter({"a@x": 1, "b@x": 1, "c@x": 1})},
        {"facts": {"a@x": SENT, "b@x": Fact(state="sent", attempts=2)}},
        {"facts": {"a@x": SENT, "b@x": Fact(state="sent", attempts=2, recorded=2, sent=2)}},
        {"leases": 1},
        {
            "taken": Counter({"a@x": 2, "b@x": 1}),
            "facts": {"a@x": Fact(state="sent", doubts=1), "b@x": SENT},
            "listed": {"b@x"},
        },
        {"poison": {"p@x"}},
        {"poison": {"p@x"}, "facts": {"a@x": SENT, "b@x": SENT, "p@x": Fact(state="queued", sent=0)}},
    ],
    ids=[
        "sent before the commit",
        "an attempt without history",
        "sent twice",
        "a lease",
        "not listed",
        "no poison",
        "poison queued",
    ],
)
def test_a_broken_invariant_is_told(fields: dict[str, Any]) -> None:
    verdict = judge(evidence(**fields))
    assert 1 == len(verdict.broken)
    assert not verdict.good


def test_an_unanswered_dot_is_a_doubt_also_where_another_server_took_the_message() -> None:
    unanswered = {
        "relay": "mx",
        "status": "4.4.2",
        "reason": "lost connection while sending end of data -- message may be sent more than once",
    }
    assert 1 == doubts_in("sent", [unanswered, {"relay": "mx", "status": "4.4.1", "reason": "connection refused"}])
    assert 2 == doubts_in("uncertain", [unanswered])


def test_the_table_adds_up_and_the_last_line_counts() -> None:
    row = Row("worker killed", struck=3, verdicts=[judge(evidence()), judge(evidence(taken=Counter({"a@x": 2})))])
    assert ("worker killed", "2", "3", "4", "1", "0", "1", "2.0 s") == row.cells()
    assert "faults: 1 kinds, 4 mails, lost 1, unexplained duplicates 1" == summary([row])
    assert 3 == len(table([row]).splitlines())
    assert not row.good
    assert not Row("nothing", verdicts=[judge(evidence())]).good
