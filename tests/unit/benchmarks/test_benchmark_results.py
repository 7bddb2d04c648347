"""From runs to medians, tables, judgements and the page."""

import json
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import report
from benchmarks.harness import goals
from benchmarks.harness.percentile import percentile
from benchmarks.harness.plot import bars
from benchmarks.harness.results import Run, Spread, summaries, table
from benchmarks.harness.workloads import WORKLOADS
from benchmarks.run import RESULTS, SYSTEMS, command, parse_label


def run(system: str = "mailq", seconds: float = 2.0, **fields: Any) -> Run:
    plain: dict[str, Any] = {
        "workload": "W1",
        "messages": 1000,
        "cpu_seconds": {"enqueue": 0.1, "worker": 0.3},
        "peak_bytes": {"worker": 50_000_000, "postgresql": 30_000_000},
        "delivered": 1000,
    }
    return Run(system=system, seconds=seconds, **(plain | fields))


def test_a_spread_is_the_median_with_least_and_most() -> None:
    assert Spread(median=3, low=1, high=10) == Spread.of([10, 1, 3])


def test_a_rate_is_messages_by_seconds_and_cpu_is_by_message() -> None:
    one = run()
    assert 500 == one.rate
    assert {"enqueue": pytest.approx(100), "worker": pytest.approx(300)} == one.cpu_micros()


def test_repetitions_become_one_summary_by_workload_and_system() -> None:
    found = summaries([run(seconds=1), run("postfix"), run(seconds=4), run(seconds=2)])
    assert ["mailq", "postfix"] == list(found["W1"])
    mailq = found["W1"]["mailq"]
    assert {"median": 500, "min": 250, "max": 1000} == mailq["messages_per_second"]
    assert 3 == mailq["repetitions"]
    assert 400 == mailq["cpu_micros_per_message_total"]


def test_the_worst_repetition_counts_for_what_arrived_and_for_memory() -> None:
    worse = run(delivered=998, missing=2, duplicates=1, peak_bytes={"worker": 90_000_000})
    one = summaries([run(), worse])["W1"]["mailq"]
    assert (998, 2, 1) == (one["delivered"], one["missing"], one["duplicates"])
    assert {"worker": 90_000_000, "postgresql": 30_000_000} == one["peak_memory_bytes"]


def test_a_table_has_a_line_for_each_system() -> None:
    text = table("W1", summaries([run(), run("postfix")])["W1"])
    assert ["mailq", "postfix"] == [line.split()[0] for line in text.splitlines()[2:]]
    assert "enqueue 100, worker 300" in text


def test_a_table_of_views_has_their_percentiles() -> None:
    views = summaries([run("mail", workload="W8", more={"p50_ms": 1.5, "p99_ms": 4.25})])["W8"]
    assert "p99     4.25 ms" in table("W8", views)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert expected == percentile(list(range(100, 0, -1)), share)


@pytest.mark.parametrize("label", list(SYSTEMS))
def test_a_label_names_a_system(label: str) -> None:
    assert (label, {}) == parse_label(label)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("mailq@10", ("mailq", {"injectors": 10})),
        ("mailqx4", ("mailq", {"processes": 4})),
        ("mailq+1000000", ("mailq", {"backlog": 1_000_000})),
        ("mailqx2@10", ("mailq", {"processes": 2, "injectors": 10})),
        ("postfix-tuned@2", ("postfix-tuned", {"injectors": 2})),
    ],
)
def test_a_label_says_what_is_varied(label: str, expected: tuple[str, dict[str, int]]) -> None:
    assert expected == parse_label(label)


@pytest.mark.parametrize("label", ["sendmail", "mailqx", "mailq@", ""])
def test_an_unknown_label_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="no system"):
        parse_label(label)


def test_every_workload_compares_systems_that_exist() -> None:
    assert [] == [label for one in WORKLOADS.values() for label in one.systems if parse_label(label)[0] not in SYSTEMS]


def test_messages_to_failing_destinations_are_not_waited_for() -> None:
    workload = WORKLOADS["W6"]
    numbers = workload.deliverable(range(100))
    assert 70 == len(numbers)
    assert 15 == min(number % 50 for number in numbers)


def results(**rates: float) -> dict[str, Any]:
    """Return results of W1 in which each system has its rate and one second of CPU time in all."""
    runs = [run(name.replace("_", "-"), seconds=1000 / rate) for name, rate in rates.items()]
    return summaries(runs)


def verdicts(workloads: dict[str, Any]) -> dict[str, str]:
    return {one.goal.text: one.verdict for one in goals.judge(workloads)}


def test_a_goal_is_met_or_not_by_the_ratio_of_medians() -> None:
    found = verdicts(results(mailq=1600, postfix=500, postfix_tuned=900))
    assert "met" == found["W1: mailq to Postfix at its defaults"]
    assert "not met" == found["W1: mailq to Postfix at its best"]
    assert "not measured" == found["W2: mailq to Postfix at its defaults"]


def test_all_sessions_of_postfix_count_for_its_best() -> None:
    workloads = results(mailq=1000, postfix=100)
    workloads["W1"]["postfix@10"] = results(postfix=600)["W1"]["postfix"]
    assert "not met" == verdicts(workloads)["W1: mailq to Postfix at its best"]


def test_nothing_is_met_where_nothing_was_measured() -> None:
    assert {"not measured"} == set(verdicts({}).values())


def test_an_upper_bound_is_met_from_below() -> None:
    goal = goals.Goal(text="memory", bound=200, measure=lambda _: 150.0, at_most=True)
    assert goal.is_met(200)
    assert not goal.is_met(200.5)


def test_where_a_peer_wins_is_said_with_the_ratio() -> None:
    assert ["W1: postfix sends more messages a second (2.0 times)"] == list(
        goals.peers_ahead(results(mailq=500, mailq_bulk=900, postfix=1000))
    )


def test_what_a_fleet_needs_is_reckoned_for_a_hundred_messages_a_second() -> None:
    found = report.sizing_table(summaries([run(), run("postfix")]))
    assert ["W1: one destination", "0.03", "0.00", "0.00", "0.01", "50"] == found[-1].strip("| ").split(" | ")


def test_a_picture_is_well_formed_and_has_a_bar_for_each_system() -> None:
    picture = bars("a < b", {"mailq": (3.0, 2.0, 4.0), "exim & co": (1.0, 1.0, 1.0)}, unit="/s")
    root = ET.fromstring(picture)
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert ["a < b", "mailq", "3.0/s", "exim & co", "1.0/s"] == texts


def test_the_page_says_what_is_missed_and_by_which_command_it_was_measured() -> None:
    stamp = SimpleNamespace(command="run it", at="today", cores=2, processor="one", load=0.1, python="3", kernel="6")
    found = {"workloads": results(mailq=500, postfix=1000), "runs": {"W1": vars(stamp)}}
    text = report.page(found, "# Benchmarks\n")
    assert text.startswith("# Benchmarks\n")
    assert "| W1: mailq to Postfix at its defaults | ≥ 3 times | 0.50 times | not met |" in text
    assert "- W1: postfix sends more messages a second (2.0 times)" in text
    assert "`run it`" in text
    assert "images/benchmark-W1.svg" in text


def test_the_page_in_the_documents_is_the_one_of_the_results_file() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert (report.DOCS / "benchmarks.md").read_text(encoding="utf-8") == report.page(found, report.METHOD.read_text())


def test_every_picture_of_the_page_is_there() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert [] == [
        name for name in found["workloads"] if not (report.DOCS / "images" / f"benchmark-{name}.svg").exists()
    ]


@pytest.mark.parametrize(
    "words", [["--output", "a.json", "--repeat", "3"], ["--repeat", "3", "--output", "b"], ["--repeat", "3"]]
)
def test_the_command_that_is_shown_says_nothing_of_where_results_went(words: list[str]) -> None:
    assert "python -m benchmarks.run --repeat 3" == command(words)


def test_a_peer_that_is_ahead_in_several_things_has_one_line() -> None:
    workloads = results(mailq=500, postfix=1000)
    workloads["W1"]["postfix"] |= {"cpu_micros_per_message_total": 100.0, "peak_memory_bytes": {"postfix": 40_000_000}}
    workloads["W1"]["postfix@10"] = workloads["W1"]["postfix"]
    (line,) = goals.peers_ahead(workloads)
    assert line.startswith("W1: postfix sends more messages a second (2.0 times), uses less CPU time")
    assert line.endswith("a message (4.0 times), uses less memory (2.0 times)")
