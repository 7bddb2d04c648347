"""A histogram counts as Prometheus reads it."""

import threading

from prometheus_client import CollectorRegistry

from mailq.worker.durations import Durations


def shown(one):
    registry = CollectorRegistry()
    registry.register(one)
    (family,) = registry.collect()
    return {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}


def test_each_bucket_holds_all_that_is_no_longer():
    one = Durations("d", "Some.", bounds=(0.1, 1.0))
    one.observe([("", 0.05), ("", 0.1), ("", 0.5), ("", 7)])
    assert {
        ("d_bucket", "0.1"): 2,
        ("d_bucket", "1.0"): 3,
        ("d_bucket", "+Inf"): 4,
        ("d_count",): 4,
        ("d_sum",): 7.65,
    } == shown(one)


def test_each_value_of_the_label_is_counted_by_itself():
    one = Durations("d", "Some.", label="stage", bounds=(1.0,))
    one.observe([("mail", 0.5), ("tls", 2.0), ("mail", 0.25)])
    found = shown(one)
    assert 2 == found["d_count", "mail"]
    assert 0.75 == found["d_sum", "mail"]
    assert 0 == found["d_bucket", "tls", "1.0"]
    assert 1 == found["d_bucket", "tls", "+Inf"]


def test_nothing_counted_is_told_as_zero_where_there_is_no_label():
    assert 0 == shown(Durations("d", "Some."))["d_count",]
    assert {} == shown(Durations("d", "Some.", label="stage"))


def test_many_threads_lose_no_count():
    one = Durations("d", "Some.", label="stage")
    threads = [threading.Thread(target=lambda: [one.observe([("x", 1.0)]) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 4000 == shown(one)["d_count", "x"]
