"""Counts and reports of TLS, and what messages ask of it, on SQLite and on PostgreSQL. Source: RFC 8460, RFC 8689."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mailq.queue.messages import RecipientResult
from mailq.queue.store import Store
from mailq.security import TlsLevel, TlsResult
from mailq.status import Deferred, Delivered, SessionFacts
from mailq.tls.tlsrpt import SessionKind
from tests.fakes.queue_values import a_message, deferred, finish, recipients_of, sent, take

HOUR = timedelta(hours=1)
DAY = "2026-03-01"
SUCCESS = SessionKind(day=DAY, domain="far.test", policy_type="sts", policy=("version: STSv1", "mx: mx.far.test"))
FAILURE = replace(SUCCESS, result_type="certificate-expired", receiving_host="mx.far.test", reason="it has expired")
OTHER = SessionKind(day=DAY, domain="other.test", policy_type="no-policy-found")


def test_counts_of_all_workers_are_added_up(store: Store) -> None:
    store.tls_reports.add({SUCCESS: 2, FAILURE: 1, OTHER: 5})
    store.tls_reports.add({SUCCESS: 3})
    store.tls_reports.add({})
    assert {SUCCESS: 5, FAILURE: 1} == store.tls_reports.counts(DAY, "far.test")
    assert {OTHER: 5} == store.tls_reports.counts(DAY, "other.test")


def test_workers_that_add_at_the_same_time_lose_nothing(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        adding = [pool.submit(store.tls_reports.add, {SUCCESS: 1, FAILURE: 1, OTHER: 1}) for _ in range(20)]
        for one in adding:
            one.result(timeout=60)
    assert {SUCCESS: 20, FAILURE: 20} == store.tls_reports.counts(DAY, "far.test")


def test_a_day_that_is_over_is_due_and_today_is_not(store: Store) -> None:
    today = replace(OTHER, day=datetime.now(UTC).date().isoformat())
    store.tls_reports.add({SUCCESS: 1, today: 1})
    assert [(DAY, "far.test")] == store.tls_reports.due(limit=10)


def test_a_report_that_is_being_sent_is_not_due_for_others(store: Store) -> None:
    store.tls_reports.add({SUCCESS: 1})
    assert 1 == store.tls_reports.take(DAY, "far.test", again=HOUR)
    assert [] == store.tls_reports.due(limit=10)
    assert 2 == store.tls_reports.take(DAY, "far.test", again=timedelta(0))
    assert [(DAY, "far.test")] == store.tls_reports.due(limit=10)


def test_a_report_is_settled_once_and_its_mail_queued_once(store: Store) -> None:
    store.tls_reports.add({SUCCESS: 1})
    mail = [a_message("reports@far.test", tls_optional=True)]
    ids = store.tls_reports.settle(DAY, "far.test", outcome="sent", detail="mailto:reports@far.test", messages=mail)
    assert [True] == [store.show(queue_id).tls_optional for queue_id in ids]
    assert [] == store.tls_reports.settle(DAY, "far.test", outcome="sent", detail="again", messages=mail)
    assert store.tls_reports.take(DAY, "far.test", again=HOUR) is None
    (view,) = store.tls_reports.list_reports()
    assert ("sent", "mailto:reports@far.test", 1) == (view.outcome, view.detail, view.sessions)
    assert 1 == sum(store.counts().values())


def test_counts_that_come_late_owe_no_second_report(store: Store) -> None:
    store.tls_reports.add({SUCCESS: 1})
    store.tls_reports.settle(DAY, "far.test", outcome="unwanted", detail="")
    store.tls_reports.add({SUCCESS: 1})
    assert [] == store.tls_reports.due(limit=10)


def test_a_report_can_be_put_off_and_made_due_again(store: Store) -> None:
    store.tls_reports.add({SUCCESS: 1})
    store.tls_reports.put_off(DAY, "far.test", again=HOUR, detail="nobody answers")
    assert ([], "nobody answers") == (store.tls_reports.due(limit=1), store.tls_reports.list_reports()[0].detail)
    store.tls_reports.settle(DAY, "far.test", outcome="failed", detail="")
    store.tls_reports.reopen(DAY, "far.test")
    assert [(DAY, "far.test")] == store.tls_reports.due(limit=10)


def test_reports_are_listed_with_their_sums(store: Store) -> None:
    store.tls_reports.add({SUCCESS: 2, FAILURE: 1, OTHER: 5, replace(OTHER, day="2026-03-02"): 1})
    listed = [(one.day, one.domain, one.sessions, one.failures) for one in store.tls_reports.list_reports()]
    assert [("2026-03-02", "other.test", 1, 0), (DAY, "far.test", 3, 1), (DAY, "other.test", 5, 0)] == listed
    assert 2 == len(store.tls_reports.list_reports(day=DAY))
    assert 2 == len(store.tls_reports.list_reports(domain="other.test"))
    assert 1 == len(store.tls_reports.list_reports(limit=1))


def test_settled_days_are_forgotten_and_owed_ones_are_not(store: Store) -> None:
    store.tls_reports.add({SUCCESS: 2, OTHER: 5})
    store.tls_reports.settle(DAY, "far.test", outcome="sent", detail="")
    assert 0 == store.tls_reports.purge(before=DAY)
    assert 1 == store.tls_reports.purge(before="2026-03-02")
    assert [{}, {OTHER: 5}] == [store.tls_reports.counts(DAY, domain) for domain in ("far.test", "other.test")]


def test_what_a_message_asks_of_tls_comes_with_it(store: Store) -> None:
    """Source: RFC 8689 §2, §3."""
    wishes = [{"require_tls": True}, {"tls_optional": True}, {}]
    ids = store.insert([a_message("bob@far.test", **wish) for wish in wishes])
    requests = {one.queue_id: (one.require_tls, one.tls_optional) for one in take(store).requests}
    assert [(True, False), (False, True), (False, False)] == [requests[queue_id] for queue_id in ids]
    shown = [store.show(queue_id) for queue_id in ids]
    assert [(True, False), (False, True), (False, False)] == [(one.require_tls, one.tls_optional) for one in shown]


def test_history_tells_how_each_session_was_encrypted(store: Store) -> None:
    tls = TlsResult(
        level=TlsLevel.DANE,
        source="DANE",
        protocol="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        bits=256,
        peer_name="mx.far.test",
        fingerprint="ab" * 32,
        verified_by="TLSA 3 1 1 " + "cd" * 32,
    )
    plain = TlsResult(level=TlsLevel.MAY, source="tls_security_level", problem="STARTTLS not offered")
    (queue_id,) = store.insert([a_message("ann@far.test", "bob@far.test", "cid@far.test")])
    lease = take(store)
    one, two, three = recipients_of(lease)
    finish(store, [_with_tls(sent(one), tls), _with_tls(deferred(two), plain), deferred(three)], lease)
    history = [recipient.history[0].tls for recipient in store.show(queue_id).recipients]
    expected = {
        "level": "dane",
        "source": "DANE",
        "protocol": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "bits": 256,
        "peer_name": "mx.far.test",
        "fingerprint": "ab" * 32,
        "verified_by": "TLSA 3 1 1 " + "cd" * 32,
        "problem": "",
        "resumed": False,
    }
    assert expected == history[0]
    assert ("may", "", "STARTTLS not offered") == (
        history[1]["level"],
        history[1]["protocol"],
        history[1]["problem"],
    )
    assert history[2] is None


def _with_tls(result: RecipientResult, tls: TlsResult) -> RecipientResult:
    facts = SessionFacts(tls=tls)
    if isinstance(result.outcome, Delivered):
        return replace(result, outcome=replace(result.outcome, facts=facts))
    assert isinstance(result.outcome, Deferred)
    return replace(result, outcome=Deferred(replace(result.outcome.failure, facts=facts)))
