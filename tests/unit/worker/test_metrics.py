"""What a worker counts, and what it never tells."""

import logging
import socket
from dataclasses import replace
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest

from mailq.errors import SettingError
from mailq.security import TlsLevel, TlsResult
from mailq.status import (
    Bounced,
    Deferred,
    Delivered,
    DeliveryReport,
    Endpoint,
    EnhancedStatus,
    Failure,
    Outcome,
    RecipientId,
    Reply,
    Scope,
    SessionFacts,
    Severity,
    Stage,
)
from mailq.worker.metric_names import METRICS, Page
from mailq.worker.metrics import Metrics
from mailq.worker.metrics_page import MetricsPage, split_address
from tests.fakes.queue_values import bounced, deferred, expired, sent

SERVER = Endpoint("mx.secret.test", "192.0.2.1", 25)
WATCHED = ("mailq_outcomes", "mailq_sessions", "mailq_tls_policies", "mailq_logins")
FAILED = Failure(
    status=EnhancedStatus(Severity.TRANSIENT, 7, 8), reason="no", stage=Stage.AUTH, scope=Scope.SERVER, endpoint=SERVER
)
ENCRYPTED = TlsResult(level=TlsLevel.DANE, source="DANE", protocol="TLSv1.3", cipher="x", verified_by="TLSA 3 1 1 ab")
PLAINTEXT = TlsResult(level=TlsLevel.MAY, source="tls_security_level", problem="STARTTLS not offered")


def delivered(facts: SessionFacts | None, *earlier: SessionFacts) -> Delivered:
    failures = tuple(replace(FAILED, facts=one) for one in earlier)
    return Delivered(SERVER, Reply(250, ("250 2.0.0 ok",)), earlier=failures, facts=facts)


def report(*outcomes: Outcome) -> DeliveryReport:
    return DeliveryReport(outcomes={RecipientId(number): outcome for number, outcome in enumerate(outcomes)})


def counted(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    values = (line.rpartition(" ") for line in lines if line.startswith(WATCHED) and "_created" not in line)
    return {name.removeprefix("mailq_"): float(value) for name, _, value in values}


def test_recipients_are_counted_by_what_became_of_them():
    metrics = Metrics()
    one = RecipientId(1)
    metrics.recorded([sent(one), sent(one), deferred(one), bounced(one), expired(one)])
    found = counted(metrics)
    assert 2 == found.pop('outcomes_total{outcome="sent",status="2.0"}')
    assert {"deferred": 1, "bounced": 1, "expired": 1} == {name.split('"')[1]: n for name, n in found.items()}


def test_the_subject_of_a_status_is_told_only_where_it_is_a_known_one():
    """A server may write whatever it likes there."""
    metrics = Metrics()
    odd = replace(sent(RecipientId(1)), outcome=Delivered(SERVER, Reply(250, ("250 2.731.4 ok",))))
    metrics.recorded([odd])
    assert {'outcomes_total{outcome="sent",status="2.x"}': 1} == counted(metrics)


def test_a_session_counts_once_however_many_recipients_it_had():
    metrics = Metrics()
    facts = SessionFacts(tls=ENCRYPTED, login="SCRAM-SHA-256 accepted")
    metrics.attempted(report(delivered(facts), delivered(facts)))
    assert {
        'sessions_total{level="dane",tls="TLSv1.3",verified="yes"}': 1,
        'tls_policies_total{level="dane",source="DANE"}': 1,
        'logins_total{mechanism="SCRAM-SHA-256",result="accepted"}': 1,
    } == counted(metrics)


def test_earlier_sessions_of_the_attempt_count_and_reused_ones_do_not():
    metrics = Metrics()
    refused = SessionFacts(tls=PLAINTEXT, login="PLAIN refused")
    kept = SessionFacts(tls=ENCRYPTED, login="PLAIN accepted", reused=True)
    metrics.attempted(
        report(delivered(kept, refused), Deferred(FAILED), Bounced(replace(FAILED, facts=SessionFacts())))
    )
    assert {
        'sessions_total{level="may",tls="none",verified="no"}': 1,
        'sessions_total{level="unknown",tls="none",verified="no"}': 1,
        'tls_policies_total{level="may",source="tls_security_level"}': 1,
        'logins_total{mechanism="PLAIN",result="refused"}': 1,
    } == counted(metrics)


def test_no_label_holds_a_name_an_address_or_words_of_a_server():
    metrics = Metrics()
    odd = replace(ENCRYPTED, source="example.secret.test", protocol="secret.test")
    metrics.attempted(report(delivered(SessionFacts(tls=odd))))
    metrics.recorded([sent(RecipientId(1))])
    assert "secret.test" not in generate_latest(metrics.registry).decode()
    assert 'source="other"' in generate_latest(metrics.registry).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("127.0.0.1:9111", ("127.0.0.1", 9111)),
        (":9111", ("127.0.0.1", 9111)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:9111", ("::1", 9111)),
    ],
)
def test_an_address_is_loopback_unless_it_says_otherwise(text, expected):
    assert expected == split_address(text)


@pytest.mark.parametrize("text", ["9111", "localhost", "localhost:http", ":65536", ":-1", "[::1]"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SettingError, match="metrics_address"):
        split_address(text)


def test_the_page_is_there_from_open_to_close():
    page = MetricsPage(Metrics().registry, "127.0.0.1:0")
    page.open()
    port = page.port
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"# HELP mailq_outcomes_total Recipients by what became of them" in answer.read()
    page.close()
    page.close()
    assert 0 == page.port
    with socket.socket() as probe:
        assert 0 != probe.connect_ex(("127.0.0.1", port))


def test_a_port_that_is_taken_is_logged_and_stops_nothing(caplog):
    with socket.socket() as taken, caplog.at_level(logging.ERROR):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        page = MetricsPage(Metrics().registry, f":{taken.getsockname()[1]}")
        page.open()
        page.close()
    assert "cannot be shown" in caplog.text


def test_without_an_address_nothing_listens():
    page = MetricsPage(Metrics().registry, "")
    page.open()
    assert 0 == page.port


def all_counted(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    values = (line.rpartition(" ") for line in lines if line.startswith("mailq_") and "_created" not in line)
    return {name.removeprefix("mailq_"): float(value) for name, _, value in values}


def test_every_metric_of_the_table_is_shown_and_no_other():
    metrics = Metrics()
    metrics.watch_tasks(lambda: 3, threads=20)
    known = {one.name for one in metrics.registry.collect() if one.name.startswith("mailq_")}
    table = {one.name.removesuffix("_total") for one in METRICS.values() if one.page is Page.WORKER}
    assert table == known


def test_each_metric_has_the_labels_and_the_meaning_of_the_table():
    metrics = Metrics()
    facts = SessionFacts(tls=ENCRYPTED, login="PLAIN accepted", seconds={"dns": 0.1}, stages={Stage.MAIL: 0.2})
    metrics.attempted(report(delivered(facts)), waited_seconds=1.0)
    metrics.recorded([sent(RecipientId(1))])
    metrics.dispatched(0.1, rung=1)
    metrics.watch_tasks(lambda: 0, threads=1)
    for family in metrics.registry.collect():
        found = METRICS.get(family.name) or METRICS.get(f"{family.name}_total")
        if found is None:
            assert family.name.startswith("process_")
            continue
        assert found.text == family.documentation
        assert found.kind == family.type
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert set(found.labels) == labels, family.name


def test_a_transaction_is_counted_by_whether_its_session_was_there():
    metrics = Metrics()
    metrics.attempted(report(delivered(SessionFacts()), delivered(SessionFacts(reused=True))))
    found = all_counted(metrics)
    assert 1 == found['session_uses_total{session="opened"}']
    assert 1 == found['session_uses_total{session="reused"}']


def test_each_stage_of_a_session_is_timed_once():
    metrics = Metrics()
    facts = SessionFacts(
        seconds={"dns": 0.02, "connect": 0.03, "handshake": 9, "transfer": 9},
        stages={Stage.EHLO: 0.1, Stage.HELO: 0.2, Stage.END_OF_DATA: 4.0, Stage.QUIT: 7.0},
    )
    metrics.attempted(report(delivered(facts), delivered(facts)))
    found = all_counted(metrics)
    assert 1 == found['stage_seconds_count{stage="hello"}']
    assert 0.3 == pytest.approx(found['stage_seconds_sum{stage="hello"}'])
    assert 1 == found['stage_seconds_bucket{le="5.0",stage="end_of_data"}']
    assert 0 == found['stage_seconds_bucket{le="2.5",stage="end_of_data"}']
    stages = {name.split('stage="')[1].rstrip('"}') for name in found if name.startswith("stage_seconds_count")}
    assert {"dns", "connect", "hello", "end_of_data"} == stages


def test_the_time_in_the_queue_is_counted_for_each_recipient_that_was_sent():
    metrics = Metrics()
    metrics.attempted(report(delivered(None), delivered(None), Deferred(FAILED)), waited_seconds=7.0)
    found = all_counted(metrics)
    assert 2 == found["queue_to_sent_seconds_count"]
    assert 14 == found["queue_to_sent_seconds_sum"]


def test_claims_are_told_by_what_they_found():
    metrics = Metrics()
    for recipients in (100, 0, 3):
        metrics.claimed(recipients)
    found = all_counted(metrics)
    assert 2 == found['claims_total{found="mail"}']
    assert 1 == found['claims_total{found="none"}']
    assert 103 == found["claimed_recipients_total"]


def test_tasks_are_counted_at_the_moment_somebody_looks():
    metrics = Metrics()
    running = [0]
    metrics.watch_tasks(lambda: running[0], threads=20)
    running[0] = 7
    assert 7 == all_counted(metrics)["tasks"]
    assert 20 == all_counted(metrics)["threads"]


def test_a_round_of_the_dispatcher_is_counted_by_what_it_did():
    metrics = Metrics()
    metrics.dispatched(0.5, rung=3, freed=0)
    metrics.dispatched(0.25, rung=2, freed=1)
    found = all_counted(metrics)
    assert 2 == found["dispatcher_rounds_total"]
    assert 0.75 == found["dispatcher_round_seconds_total"]
    assert 5 == found['dispatcher_work_total{what="rung"}']
    assert 1 == found['dispatcher_work_total{what="freed"}']
