"""systemd units, Kubernetes manifests and the image: commands, settings, secrets and names agree with the code."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mailq.cli import main
from mailq.settings import Settings
from mailq.settings_sources import load as load_settings
from mailq.worker import metric_names
from scripts import compose

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "ops/systemd").glob("*.service"))
KUBERNETES = ROOT / "ops/kubernetes"
MANIFESTS = [
    document
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    if path.name not in {"kustomization.yaml", "secret.example.yaml"}
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
SECRET = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text(encoding="utf-8"))


def assert_is_a_command(words: list[str]) -> None:
    program, command, *arguments = words
    assert "mailq" == Path(program).name
    found = main.commands[command]
    with click.Context(found) as context:
        assert [] == found.parse_args(context, [*arguments])


def longest_session_wait() -> float:
    return Settings().data_done_timeout.total_seconds()


# systemd


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_there_is_a_unit_for_each_role() -> None:
    assert ["mailq-flower", "mailq-metrics", "mailq-migrate", "mailq-worker@"] == [unit.stem for unit in UNITS]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_that_exists_with_options_that_exist(unit: Path) -> None:
    (command,) = directives(unit)["ExecStart"]
    assert_is_a_command(shlex.split(command.replace("%i", "1")))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_gives_settings_that_exist_and_secrets_that_it_loads(unit: Path, tmp_path: Path) -> None:
    found = directives(unit)
    loaded = {value.partition(":")[0] for value in found["LoadCredential"]}
    for name in loaded:
        (tmp_path / name).write_text("postgresql://db/mailq" if name == "database_url" else "redis://redis/0")
    environ = dict(
        value.replace("%d", str(tmp_path)).replace("%i", "2").split("=", 1) for value in found["Environment"]
    )
    assert "/etc/mailq/mailq.toml" == environ.pop("MAILQ_CONFIG")
    assert "postgresql://db/mailq" == load_settings(environ=environ).database_url
    assert loaded == {Path(value).name for value in environ.values() if value.startswith(str(tmp_path))}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_has_no_rights_it_does_not_need(unit: Path) -> None:
    found = directives(unit)
    assert (["yes"], [""], ["yes"], ["strict"]) == tuple(
        found[name] for name in ("DynamicUser", "CapabilityBoundingSet", "NoNewPrivileges", "ProtectSystem")
    )


def test_systemd_waits_for_the_longest_session() -> None:
    (worker,) = [directives(unit) for unit in UNITS if unit.stem == "mailq-worker@"]
    assert ["11min"] == worker["TimeoutStopSec"]
    assert longest_session_wait() < 11 * 60


# Kubernetes


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    for manifest in MANIFESTS:
        if manifest["kind"] in {"Deployment", "Job"}:
            template = manifest["spec"]["template"]
            yield manifest["metadata"]["name"], template["spec"], template["metadata"]["labels"]


PODS = list(pods())
CONTAINERS = [
    pytest.param(pod, container, id=f"{name}/{container['name']}")
    for name, pod, _ in PODS
    for container in [*pod.get("initContainers", []), *pod["containers"]]
]


def test_every_manifest_is_part_of_a_kustomization() -> None:
    keda = yaml.safe_load((KUBERNETES / "keda/kustomization.yaml").read_text(encoding="utf-8"))
    files = {str(path.relative_to(KUBERNETES)) for path in KUBERNETES.rglob("*.yaml") if "kustom" not in path.name}
    listed = {*KUSTOMIZATION["resources"], *(f"keda/{name}" for name in keda["resources"] if name != "..")}
    assert files - {"secret.example.yaml"} == listed
    assert ".." in keda["resources"]


def test_the_manifests_have_what_a_fleet_needs() -> None:
    assert [
        ("Deployment", "mailq-flower"),
        ("Deployment", "mailq-metrics"),
        ("Deployment", "mailq-worker"),
        ("Job", "mailq-migrate"),
        ("NetworkPolicy", "mailq"),
        ("NetworkPolicy", "mailq-worker"),
        ("PodDisruptionBudget", "mailq-worker"),
        ("ScaledObject", "mailq-worker"),
        ("Service", "flower"),
        ("Service", "metrics"),
    ] == sorted((one["kind"], one["metadata"]["name"]) for one in MANIFESTS)


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_a_container_runs_a_command_that_exists_with_options_that_exist(pod: Any, container: Any) -> None:
    assert_is_a_command(container["command"])


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_a_container_is_given_settings_and_secrets_that_exist(pod: Any, container: Any, tmp_path: Path) -> None:
    for key, value in SECRET["stringData"].items():
        (tmp_path / key).write_text(value)
    (mount,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "secrets"]
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    environ = dict(one.split("=", 1) for one in generated["literals"])
    environ |= {one["name"]: one["value"].replace(mount, str(tmp_path)) for one in container["env"]}
    settings = load_settings(environ=environ)
    assert SECRET["stringData"]["database_url"] == settings.database_url
    assert [{"configMapRef": {"name": generated["name"]}}] == container["envFrom"]
    (volume,) = [one["secret"]["secretName"] for one in pod["volumes"] if one["name"] == "secrets"]
    assert SECRET["metadata"]["name"] == volume


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_a_container_has_no_rights_it_does_not_need_and_says_what_it_uses(pod: Any, container: Any) -> None:
    # Service links would be variables such as MAILQ_FLOWER_PORT, which are no settings.
    assert (False, False) == (pod["enableServiceLinks"], pod["automountServiceAccountToken"])
    assert (True, 10001) == (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"])
    security = container["securityContext"]
    assert (False, True, {"drop": ["ALL"]}) == (
        security["allowPrivilegeEscalation"],
        security["readOnlyRootFilesystem"],
        security["capabilities"],
    )
    assert {"requests", "limits"} == set(container["resources"])
    assert KUSTOMIZATION["images"][0]["name"] == container["image"]


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_probes_and_services_ask_at_ports_that_the_command_opens(pod: Any, container: Any) -> None:
    ports = {one["name"]: one["containerPort"] for one in container.get("ports", [])}
    probes = [container[key] for key in ("startupProbe", "livenessProbe", "readinessProbe") if key in container]
    assert {one["httpGet"]["port"] for one in probes} <= set(ports)
    text = " ".join([*container["command"], *(one["value"] for one in container["env"])])
    assert [] == [port for port in ports.values() if not re.search(rf"\b{port}\b", text)]


def test_whatever_selects_pods_finds_some() -> None:
    selectors = []
    for one in MANIFESTS:
        spec = one["spec"]
        if one["kind"] == "Service":
            selectors.append(spec["selector"])
        elif one["kind"] in {"Deployment", "PodDisruptionBudget"}:
            selectors.append(spec["selector"]["matchLabels"])
        elif one["kind"] == "NetworkPolicy":
            selectors.append(spec["podSelector"]["matchLabels"])
    assert 8 == len(selectors)
    assert [] == [one for one in selectors if not any(one.items() <= labels.items() for _, _, labels in PODS)]


def test_kubernetes_waits_for_the_longest_session_and_keeps_workers_while_it_replaces_them() -> None:
    (worker,) = [one for one in MANIFESTS if (one["kind"], one["metadata"]["name"]) == ("Deployment", "mailq-worker")]
    assert longest_session_wait() < worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert {"maxSurge": 1, "maxUnavailable": 0} == worker["spec"]["strategy"]["rollingUpdate"]


def test_an_instance_of_a_worker_is_one_process_whose_metrics_are_all_there_is() -> None:
    (pod,) = [one for one in MANIFESTS if (one["kind"], one["metadata"]["name"]) == ("Deployment", "mailq-worker")]
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    (unit,) = [unit for unit in UNITS if unit.stem == "mailq-worker@"]
    (started,) = directives(unit)["ExecStart"]
    composed = compose.load(compose.read_env_file(ROOT / "ops/example.env"))["services"]["worker"]
    for words in (container["command"], composed["command"], shlex.split(started)):
        with click.Context(main.commands["worker"]) as context:
            main.commands["worker"].parse_args(context, words[2:])
            assert 1 == context.params["processes"]


def test_compose_waits_for_the_longest_session() -> None:
    worker = compose.load(compose.read_env_file(ROOT / "ops/example.env"))["services"]["worker"]
    assert "11m" == worker["stop_grace_period"]
    assert longest_session_wait() < 11 * 60


def test_scaling_asks_for_metrics_that_exist() -> None:
    (scaled,) = [one for one in MANIFESTS if one["kind"] == "ScaledObject"]
    (trigger,) = scaled["spec"]["triggers"]
    asked = set(re.findall(r"mailq_\w+", trigger["metadata"]["query"]))
    assert {"mailq_queue_oldest_due_seconds", "mailq_tasks", "mailq_threads"} == asked
    assert asked <= set(metric_names.METRICS)
