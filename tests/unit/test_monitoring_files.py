"""What stands in ``ops/`` for monitoring agrees with the code and with itself."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailq.cli import main
from mailq.worker.metric_names import METRICS

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
RULES: list[dict[str, Any]] = yaml.safe_load((OPS / "prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"][0][
    "rules"
]
DASHBOARDS = sorted((OPS / "grafana/dashboards").glob("*.json"))
PANELS = [(path.stem, panel) for path in DASHBOARDS for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]]
QUERIES = [
    *((rule["alert"], rule["expr"]) for rule in RULES),
    *((f"{name}: {panel['title']}", target["expr"]) for name, panel in PANELS for target in panel["targets"]),
]
SERIES = {series: one for one in METRICS.values() for series in one.series}
# Of Prometheus itself, and of the library that shows our pages.
FOREIGN = {"up", "process_open_fds", "process_max_fds"}
WORDS = {"and", "or", "unless", "on", "by", "offset", "sum", "max", "rate", "increase", "delta", "deriv", "absent"}
WORDS |= {"histogram_quantile", "topk"}


def names_in(query: str) -> set[str]:
    """The metrics of a query in PromQL."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\b(?:by|on)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset\s+\w+", "", bare)
    return set(re.findall(r"\b[a-z_]\w*\b", bare)) - WORDS


def labels_in(query: str) -> dict[str, set[str]]:
    """The labels that each metric of a query is chosen by."""
    found = re.findall(r"\b([a-z_]\w*)\{([^}]*)\}", query)
    return {name: set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", choice)) for name, choice in found}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum by (le) (rate(mailq_x_bucket{stage="a_b"}[15m])) > 30', {"mailq_x_bucket"}),
        ("a_b unless a_b offset 15m or on() deriv(sum(c)[30m:1m])", {"a_b", "c"}),
    ],
)
def test_the_names_in_a_query_are_found(query: str, names: set[str]) -> None:
    assert names == names_in(query)


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_asks_for_metrics_and_labels_that_exist(where: str, query: str) -> None:
    names = names_in(query)
    assert names
    assert set() == names - SERIES.keys() - FOREIGN
    for name, labels in labels_in(query).items():
        known = set(SERIES[name].labels) if name in SERIES else set()
        assert set() == labels - known - {"job", "instance", "le"}


def test_the_dashboard_shows_every_metric() -> None:
    shown = {SERIES[name].name for where, query in QUERIES for name in names_in(query) if name in SERIES}
    assert set() == METRICS.keys() - shown


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert {"critical", "warning", "info"} >= {rule["labels"]["severity"]}
    assert rule["annotations"]["summary"].endswith(".")
    text = (OPS / "runbooks" / rule["annotations"]["runbook"]).read_text(encoding="utf-8")
    assert text.startswith(f"# {rule['alert']}\n")
    assert "## Look" in text
    assert "## Do" in text


def test_every_runbook_belongs_to_an_alert_and_stands_in_the_list() -> None:
    wanted = {rule["annotations"]["runbook"] for rule in RULES}
    assert wanted == {path.name for path in (OPS / "runbooks").glob("*.md")} - {"README.md"}
    index = (OPS / "runbooks/README.md").read_text(encoding="utf-8")
    assert [] == [name for name in wanted if f"({name})" not in index]


@pytest.mark.parametrize("path", sorted((OPS / "runbooks").glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_names_commands_options_and_metrics_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for command, rest in re.findall(r"`mailq ([a-z-]+)([^`]*)`", text):
        assert command in main.commands
        found = main.commands[command]
        options = {
            option for one in [found, *getattr(found, "commands", {}).values()] for p in one.params for option in p.opts
        }
        assert set() == set(re.findall(r"(--[a-z-]+)", rest)) - options
    known = set(METRICS) | set(SERIES)
    named = set(re.findall(r"`(mailq_\w+)`", text)) - {"mailq_recipient"}
    assert set() == named - known


def test_every_severity_has_a_test_of_its_alerts() -> None:
    tried = (OPS / "prometheus/alerts_test.yml").read_text(encoding="utf-8")
    assert {"critical", "warning", "info"} == {
        rule["labels"]["severity"] for rule in RULES if f"alertname: {rule['alert']}" in tried
    }


def test_the_dashboards_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    assert len(PANELS) == len({panel["id"] for _, panel in PANELS})
    cells = [
        (x, y)
        for _, panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert 24 == 1 + max(x for x, _ in cells)


def test_grafana_is_given_the_source_that_the_panels_ask() -> None:
    sources = yaml.safe_load((OPS / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    assert {one["uid"] for one in sources["datasources"]} == {panel["datasource"]["uid"] for _, panel in PANELS}
