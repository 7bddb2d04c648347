"""Limits set at run time: kept for all workers, on record, and told with who said so; on SQLite and PostgreSQL."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailq.api import Queue
from mailq.errors import OrderError
from mailq.limits.gates import Admitted
from mailq.limits.live_rules import LiveRules
from mailq.limits.local_limits import LocalLimits
from mailq.limits.rules import Traffic
from mailq.operating import By
from mailq.queue.store import Store
from mailq.settings import Settings

ANN = By(actor="ann@home.test", reason="they asked")
MINUTE = timedelta(minutes=1)


def a_queue(store: Store, limits: LocalLimits | None = None, **settings: Any) -> Queue:
    return Queue(settings=Settings(**settings), store=store, ring=lambda _: None, limits=limits)


def test_what_is_set_is_kept_with_who_and_why_and_changes_the_stamp(store: Store) -> None:
    rows = store.limit_rules
    assert (0, []) == rows.stamped()
    rows.set("tenant:a", {"sessions": "2", "rate": "1/s"}, by=ANN)
    rows.set("tenant:a", {"sessions": "3"}, by=By(actor="bob"))
    number, found = rows.stamped()
    assert 2 == number == rows.stamp()
    assert [
        ("tenant:a", "rate", "1/s", "ann@home.test", "they asked"),
        ("tenant:a", "sessions", "3", "bob", ""),
    ] == [(row.subject, row.field, row.value, row.actor, row.reason) for row in found]
    assert all(abs(datetime.now(UTC) - row.set_at) < MINUTE for row in found)


def test_fields_are_forgotten_one_by_one_or_all_together(store: Store) -> None:
    rows = store.limit_rules
    rows.set("tenant:a", {"sessions": "2", "rate": "1/s", "session_rate": "1/s"}, by=ANN)
    rows.set("tenant:b", {"sessions": "2"}, by=ANN)
    assert {"rate"} == rows.unset("tenant:a", ["rate", "recipient_rate"], by=ANN)
    assert {"sessions", "session_rate"} == rows.unset("tenant:a", by=ANN)
    assert frozenset() == rows.unset("tenant:a", by=ANN)
    number, found = rows.stamped()
    assert (5, ["tenant:b"]) == (number, [row.subject for row in found])


def test_each_change_is_on_record(store: Store) -> None:
    queue = a_queue(store)
    queue.limits.set("destination:X.example", {"sessions": 3}, by=ANN)
    queue.limits.unset("destination:x.example", ["sessions"], by=ANN)
    assert [
        ("unset limits", {"limits": "destination:x.example"}, {"fields": ["sessions"]}),
        ("set limits", {"limits": "destination:x.example"}, {"sessions": "3"}),
    ] == [(one.action, one.selector, one.arguments) for one in queue.audit()]
    assert all(one.finished_at for one in queue.audit())


def test_what_is_set_is_in_force_for_whoever_reads_the_rules(store: Store) -> None:
    a_queue(store).limits.set("default", {"sessions": "3", "rate": ["2/s burst=4"]})
    (gate,) = LiveRules(Settings(), store.limit_rules).now().gates(Traffic(nexthop="x.example"))
    assert (3, 2, 4) == (gate.sessions, gate.rates[0].count, gate.rates[0].burst)


@pytest.mark.parametrize(
    ("subject", "values", "said"),
    [
        ("x.example", {"sessions": 1}, "is nothing that limits are set for"),
        ("tenant:a", {}, "say what to set for tenant:a"),
        ("tenant:a", {"sesions": 1}, "tenant:a: sesions is unknown; did you mean 'sessions'?"),
        ("tenant:a", {"mx": "x"}, "tenant:a: mx is not for a tenant"),
        ("tenant:a", {"rate": "fast"}, "tenant:a: rate must be a rate such as"),
        ("provider:p", {"rate": "1/s"}, "provider:p is not known yet: set mx=… or addresses=…"),
        ("account:p", {"rate": "1/s"}, "account:p is not known yet: set nexthops=…"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    store: Store, subject: str, values: dict[str, object], said: str
) -> None:
    queue = a_queue(store)
    with pytest.raises(OrderError, match=said.replace("?", r"\?")):
        queue.limits.set(subject, values)
    assert (0, []) == store.limit_rules.stamped()
    with pytest.raises(OrderError, match="colour is unknown"):
        queue.limits.unset("tenant:a", ["colour"])


def test_an_account_of_the_file_may_get_other_numbers(store: Store, tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text('[account.ses]\nnexthops = ["[ses.example]"]\nrate = "14/s"')
    queue = a_queue(store, limits_file=f"{tmp_path}/limits.toml")
    (row,) = queue.limits.set("account:ses", {"rate": "7/s"}, by=ANN)
    assert "7/s" == row.value
    said = [(one.field, one.value, one.in_force) for one in queue.limits.said()]
    assert [("rate", "7/s", True), ("rate", "14/s", False), ("nexthops", "[ses.example]", True)] == said
    assert [] == queue.limits.problems()


def test_an_answer_says_what_applies_who_says_so_and_who_holds_it(store: Store) -> None:
    limits = LocalLimits()
    queue = a_queue(store, limits, destination_concurrency_limit=4)
    queue.limits.set("site:*.p.example", {"sessions": "1"}, by=ANN)
    store.notice(limit=1)
    traffic = Traffic(nexthop="x.example", hosts=("mx.p.example",))
    rules = LiveRules(queue.settings, store.limit_rules).now()
    limits.admit(rules.gates(traffic), owner="worker 1", hold_for=MINUTE)

    found = queue.limits.explain(traffic)

    assert ["nexthop:x.example", "site:mx.p.example", "lane:unproven"] == [one.key for one in found.limits]
    assert [(1, 4, 4), (1, 1, None), (0, 67, None)] == [(one.busy, one.limit, one.window) for one in found.limits]
    assert [{"worker 1": 1}, {"worker 1": 1}, {}] == [one.holders for one in found.limits]
    assert "destination_concurrency_limit (default)" == found.limits[0].fields[0].source
    assert found.limits[1].fields[0].source.startswith("set by ann@home.test at ")
    assert ("site:mx.p.example", "1 of 1 sessions to site:mx.p.example are open") == (found.tightest, found.shut)


def test_what_did_well_is_in_no_lane(store: Store) -> None:
    queue = a_queue(store)
    queue.send(sender="ann@home.test", to=["bob@x.example"], subject="Hi", text="Hello")
    store.notice(limit=1)
    store.settle("x.example", well=True)
    assert ["nexthop:x.example"] == [one.key for one in queue.limits.explain(Traffic(nexthop="x.example")).limits]


def test_servers_are_those_that_the_nexthop_last_had_and_each_of_their_addresses_counts(store: Store) -> None:
    queue = a_queue(store)
    queue.limits.set("provider:p", {"addresses": "192.0.2.0/24", "sessions": 1})
    queue.limits.set("source:*", {"sessions": 9})
    addresses = [("198.51.100.1", ""), ("192.0.2.7", "203.0.113.1")]
    found = queue.limits.explain(Traffic(nexthop="x.example"), addresses, problem="no MX records")
    keys = [one.key for one in found.limits]
    assert ["nexthop:x.example", "provider:p", "source:203.0.113.1", "lane:unproven"] == keys
    assert "no MX records; each worker process counts its own sessions" in found.problem
    assert (None, None, "") == (found.limits[0].busy, found.limits[0].holders, found.tightest)


def test_why_mail_waits_names_the_rate_that_is_used_up_and_who_set_it(store: Store) -> None:
    """Source: smtp-delivery Q-40."""
    limits = LocalLimits()
    queue = a_queue(store, limits)
    queue.limits.set("tenant:acme", {"session_rate": "1/h"}, by=ANN)
    queue_id = queue.send(sender="ann@home.test", to=["bob@x.example"], subject="Hi", text="Hello", tenant="acme")
    store.elect("worker 1", role="dispatcher", lease_time=MINUTE)
    gates = LiveRules(queue.settings, store.limit_rules).now().gates(Traffic(nexthop="x.example", tenant="acme"))
    admitted = limits.admit(gates, owner="worker 1", hold_for=MINUTE)
    assert isinstance(admitted, Admitted)

    (found,) = queue.explain(queue_id)

    assert "tenant:acme has used up its 1/h of sessions until " in found.sentence
    assert "; limit: set by ann@home.test at " in found.sentence
    assert "tenant:acme" == found.numbers["tightest_limit"]
    assert found.next_attempt_at is not None
