"""Which limits apply to which mail, and who says so.

Source: smtp-delivery Q-20 to Q-23, Q-36, Q-40
"""

from datetime import timedelta

import pytest

from mailq.errors import SettingError
from mailq.limits.buckets import Rate, Unit
from mailq.limits.fields import value_of
from mailq.limits.gates import Gate, least
from mailq.limits.keys import Subject
from mailq.limits.rules import Given, RuleBook, Rules, Traffic, source_for
from mailq.limits.rules_file import read_rules
from mailq.limits.shares import UNPROVEN
from mailq.limits.window import FeedbackRule, WindowRule
from mailq.settings import Settings

SECOND = timedelta(seconds=1)


def rows(**said: dict[str, str]) -> Rules:
    """Return rows; ``__`` in a name stands for the colon."""
    found: dict[Subject, dict[str, Given]] = {}
    for name, fields in said.items():
        subject = Subject.parse(name.replace("__", ":").replace("_DOT_", "."))
        found[subject] = {
            field: Given(name=field, value=value_of(field, text), source="row", subject=subject)
            for field, text in fields.items()
        }
    return found


def book(text: str = "", *, over: Rules | None = None, **settings: object) -> RuleBook:
    return RuleBook(Settings(**settings), file=read_rules(text, name="limits.toml"), rows=over or {})  # type: ignore[arg-type]  # names of settings


def keys(rules: RuleBook, **traffic: object) -> list[str]:
    return [gate.key for gate in rules.gates(Traffic(nexthop="a.example", **traffic))]  # type: ignore[arg-type]  # as above


def sources(rules: RuleBook, nexthop: str = "a.example") -> dict[str, tuple[str, str]]:
    first = rules.applied(Traffic(nexthop=nexthop))[0]
    return {name: (said.text, said.source) for name, said in first.given.items()}


def test_without_rules_a_nexthop_has_the_numbers_of_postfix() -> None:
    """Source: smtp-delivery Q-21, Q-22, Q-23, Q-31, Q-36."""
    (gate,) = RuleBook(Settings(urgent_priority=-1)).gates(
        Traffic(nexthop="a.example", hosts=("mx.a.example",), tenant="t", source="192.0.2.1", address="192.0.2.9")
    )
    window = WindowRule(initial=5, failed_cohort_limit=1, dead_time=timedelta(seconds=300))
    expected = Gate(key="nexthop:a.example", sessions=20, window=window, recipients_per_transaction=50)
    assert expected == gate


def test_settings_are_the_defaults_and_say_where_they_were_read() -> None:
    rules = RuleBook(
        Settings(
            destination_concurrency_limit=7,
            initial_destination_concurrency=3,
            destination_concurrency_positive_feedback="1/5",
            destination_concurrency_negative_feedback="1/concurrency",
            destination_concurrency_failed_cohort_limit=10,
            destination_rate_delay=2 * SECOND,
        ),
        sources={"destination_concurrency_limit": "environment MAILQ_DESTINATION_CONCURRENCY_LIMIT"},
    )
    (gate,) = rules.gates(Traffic(nexthop="a.example"))
    assert (7, 2 * SECOND, 1) == (gate.sessions, gate.rate_delay, gate.limit)
    assert gate.window == WindowRule(
        initial=3,
        positive=FeedbackRule(0.2),
        negative=FeedbackRule(1, by_concurrency=True),
        failed_cohort_limit=10,
        dead_time=timedelta(seconds=300),
    )
    said = sources(rules)
    expected = "destination_concurrency_limit (environment MAILQ_DESTINATION_CONCURRENCY_LIMIT)"
    assert (("7", expected), "destination_rate_delay (default)") == (said["sessions"], said["rate_delay"][1])


def test_feedback_that_cannot_be_meant_names_its_setting() -> None:
    with pytest.raises(SettingError, match=r"'destination_concurrency_positive_feedback' \(default\): 'much' is no"):
        book(destination_concurrency_positive_feedback="much")


def test_each_field_comes_from_the_narrowest_that_says_it_and_rows_go_before_the_file() -> None:
    rules = book(
        """
        [default]
        sessions = 10
        initial_sessions = 4
        rate = "1/s"
        [destination.".example"]
        sessions = 8
        rate = "2/s"
        failed_cohort_limit = 2
        [destination."a.example"]
        rate = "3/s"
        session_rate = "9/s"
        """,
        over=rows(
            default={"initial_sessions": "2", "sessions": "1"}, destination__a_DOT_example={"session_rate": "8/s"}
        ),
    )
    said = sources(rules)
    assert ("8", "limits.toml:7") == said["sessions"]
    assert ("3/s", "limits.toml:11") == said["rate"]
    assert ("8/s", "row") == said["session_rate"]
    assert ("2", "row") == said["initial_sessions"]
    assert ("2", "limits.toml:9") == said["failed_cohort_limit"]
    assert ("1", "row") == sources(rules, "elsewhere.org")["sessions"]
    assert ("2/s", "limits.toml:8") == sources(rules, "b.a.example")["rate"]
    assert ("8", "limits.toml:7") == sources(rules, "a.example.")["sessions"]


def test_parents_are_looked_for_of_plain_domains_only() -> None:
    rules = book('[destination.".example"]\nsessions = 1')
    limits = [
        rules.gates(Traffic(nexthop=one))[0].sessions
        for one in ("x.example", "example", "[x.example]", "x.example:26", "192.0.2.1")
    ]
    assert [1, 20, 20, 20, 20] == limits


def test_a_site_has_a_gate_where_a_rule_is_for_one_of_its_servers() -> None:
    rules = book('[site."*.p.example"]\nsessions = 4\nrate = "1/s"\n[site."mx2.p.example"]\nsessions = 2')
    (_, site) = rules.gates(Traffic(nexthop="a.example", hosts=("MX2.p.example.", "mx1.p.example")))
    rate = Rate(unit=Unit.MESSAGES, count=1)
    assert Gate(key="site:mx1.p.example,mx2.p.example", sessions=2, rates=(rate,)) == site
    assert ["nexthop:a.example"] == keys(rules, hosts=("mx.q.example",))
    assert ["nexthop:a.example"] == keys(rules)


def test_every_site_has_a_gate_where_a_rule_is_for_all() -> None:
    rules = book('[site."*"]\nsessions = 9\n[site."mx.p.example"]\nsession_rate = "1/s"')
    (_, site) = rules.gates(Traffic(nexthop="a.example", hosts=("mx.p.example",)))
    assert (9, 1) == (site.sessions, len(site.rates))
    assert ["nexthop:a.example", "site:mx.q.example"] == keys(rules, hosts=("mx.q.example",))


def test_a_provider_is_known_by_the_names_or_the_addresses_of_its_servers() -> None:
    rules = book(
        """
        [provider.google]
        mx = ["*.google.example", "aspmx.example"]
        addresses = ["192.0.2.0/24", "2001:db8::/32"]
        sessions = 3
        """
    )
    assert ["nexthop:a.example", "provider:google"] == keys(rules, hosts=("q.example", "alt1.google.example"))
    assert ["nexthop:a.example", "provider:google"] == keys(rules, hosts=("ASPMX.example",))
    assert ["nexthop:a.example", "provider:google"] == keys(rules, address="2001:0db8::25")
    assert ["nexthop:a.example"] == keys(rules, hosts=("google.example",), address="198.51.100.1")


def test_an_account_is_known_by_its_nexthops() -> None:
    rules = book('[account.ses]\nnexthops = ["[ses.example]:587"]\nrate = "14/s"')
    for nexthop in ("[ses.example]:587", "[ses.example]:587,[other.example]"):
        assert "account:ses" == rules.gates(Traffic(nexthop=nexthop))[1].key
    assert 1 == len(rules.gates(Traffic(nexthop="[ses.example]")))


def test_a_tenant_and_a_source_have_gates_by_name_or_for_each() -> None:
    rules = book('[tenant."*"]\nsessions = 2\n[tenant.acme]\nrate = "1/s"\n[source."192.0.2.1"]\nsessions = 6')
    gates = rules.gates(Traffic(nexthop="a.example", tenant="acme", source="192.0.2.1"))
    assert ["nexthop:a.example", "source:192.0.2.1", "tenant:acme"] == [one.key for one in gates]
    assert (2, 1) == (gates[2].sessions, len(gates[2].rates))
    assert ["nexthop:a.example", "tenant:other"] == keys(rules, tenant="other", source="192.0.2.2")


def test_a_shared_gate_has_a_window_only_where_a_rule_names_a_field_of_it() -> None:
    rules = book('[site."a"]\nsessions = 4\n[site."b"]\ninitial_sessions = 2', minimal_backoff_time=SECOND)
    windows = [rules.gates(Traffic(nexthop="x.example", hosts=(host,)))[1].window for host in "ab"]
    assert [None, WindowRule(initial=2, failed_cohort_limit=1, dead_time=SECOND)] == windows
    given = rules.applied(Traffic(nexthop="x.example", hosts=("b",)))[1].given
    assert ["initial_sessions", "positive_feedback", "negative_feedback", "failed_cohort_limit"] == list(given)


def test_some_sessions_of_each_gate_are_kept_free_for_urgent_mail() -> None:
    rules = book("[default]\nsessions = 20\n[site.a]\nsessions = 3")
    gates = rules.gates(Traffic(nexthop="x.example", hosts=("a",), urgent=True))
    assert [(2, True), (0, True)] == [(gate.kept_free, gate.urgent) for gate in gates]


def test_a_rule_that_is_for_no_mail_is_told() -> None:
    rules = book('[provider.x]\nsessions = 1\n[account.y]\nrate = "1/s"')
    assert [
        "limits.toml:2: provider:x has no mx or addresses, so it is for no mail",
        "limits.toml:4: account:y has no nexthops, so it is for no mail",
    ] == list(rules.problems)
    assert [] == book('[provider.x]\nmx = "a.example"\nsessions = 1').problems


def test_how_much_one_session_and_one_transaction_carry_is_said_for_each_key() -> None:
    """Source: smtp-delivery Q-04."""
    rules = book(
        '[default]\nrecipients_per_transaction = 9\n[site."mx.example"]\nmessages_per_session = 3\n'
        '[provider.p]\nmx = ["*.example"]\nrecipients_per_transaction = 4\nmessages_per_session = 7\n'
    )
    gates = rules.gates(Traffic(nexthop="a.example", hosts=("mx.example",)))
    assert [(9, 0), (0, 3), (4, 7)] == [(gate.recipients_per_transaction, gate.messages_per_session) for gate in gates]
    assert (4, 3) == (
        least(gate.recipients_per_transaction for gate in gates),
        least(gate.messages_per_session for gate in gates),
    )


def test_a_rule_that_only_tells_whom_it_is_for_limits_nobody() -> None:
    assert ["nexthop:a.example"] == keys(book('[provider.x]\nmx = "m.example"'), hosts=("m.example",))


def test_nexthops_that_nothing_good_is_known_of_share_a_gate_with_some_sessions_for_urgent_mail() -> None:
    rules = book(urgent_priority=2)
    ordinary, urgent = (
        rules.applied(Traffic(nexthop="a.example", most_unproven=75, urgent=urgent))[-1] for urgent in (False, True)
    )
    assert (UNPROVEN, 67, 75) == (ordinary.gate.key, ordinary.gate.most(None), urgent.gate.most(None))
    assert ("75", True) == (ordinary.given["sessions"].text, "worker_concurrency" in ordinary.given["sessions"].source)


def test_the_source_address_depends_on_the_family() -> None:
    settings = Settings(bind_address="192.0.2.1", bind_address6="2001:db8::1")
    assert ("192.0.2.1", "2001:db8::1") == (source_for(settings, "198.51.100.1"), source_for(settings, "2001:db8::9"))
