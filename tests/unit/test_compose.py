"""docker-compose.yml: valid by the schema, and every command, variable and secret is one that exists."""

import json
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from mailq.cli import main
from mailq.settings_sources import load as load_settings
from scripts import compose
from scripts.compose import FILE, ROOT, ComposeError, Place, command_here, here, interpolate, ports_of, read_env_file

EXAMPLE = read_env_file(ROOT / "ops/example.env")
SINK = EXAMPLE | read_env_file(ROOT / "ops/sink.env")
COMPOSE: dict[str, Any] = compose.load(EXAMPLE)
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "mailq:local"}
SCHEMA = json.loads((ROOT / "tests/schemas/compose-spec.json").read_text(encoding="utf-8"))


def complaints(document: Any) -> list[str]:
    return [
        f"{list(one.absolute_path)}: {one.message}" for one in jsonschema.Draft7Validator(SCHEMA).iter_errors(document)
    ]


@pytest.mark.parametrize("environ", [EXAMPLE, SINK], ids=["example.env", "sink.env"])
def test_the_file_is_valid_before_and_after_its_variables_are_put_in(environ: dict[str, str]) -> None:
    assert [] == complaints(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    assert [] == complaints(compose.load(environ))


def test_the_schema_refuses_what_is_no_compose_file() -> None:
    assert 1 == len(complaints({"services": {"worker": {"comand": ["mailq"]}}}))


def test_the_fleet_has_all_it_needs() -> None:
    assert {"worker", "migrate", "metrics", "flower", "sink"} == set(OURS)
    assert {"postgres", "redis", "prometheus", "grafana"} == set(SERVICES) - set(OURS)


def test_workers_are_one_service_that_can_be_scaled() -> None:
    worker = SERVICES["worker"]
    assert {"replicas": 2} == worker["deploy"]
    # Either would tie the name or the port to one container.
    assert [] == [key for key in ("container_name", "ports", "hostname") if key in worker]
    assert {
        "migrate": {"condition": "service_completed_successfully"},
        "redis": {"condition": "service_healthy"},
    } == worker["depends_on"]


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_that_exists_with_options_that_exist(name: str) -> None:
    program, command, *arguments = OURS[name]["command"]
    assert "mailq" == program
    found = main.commands[command]
    # Parsing runs nothing; an unknown option or an unusable value raises.
    with click.Context(found) as context:
        assert [] == found.parse_args(context, [*arguments])


@pytest.mark.parametrize("environ", [EXAMPLE, SINK], ids=["example.env", "sink.env"])
@pytest.mark.parametrize("name", OURS)
def test_a_service_is_given_settings_that_exist(name: str, environ: dict[str, str], secrets: Path) -> None:
    service = compose.load(environ)["services"][name]
    place = Place(secrets=secrets, ports={})
    settings = load_settings(environ=compose.environment_here(service, name, place))
    assert ("postgresql", "redis") == (settings.database_url[:10], settings.broker_url[:5])
    assert ("internet" if environ is SINK else "loopback") == settings.network
    assert ("172.30.53.253:5353",) * (environ is SINK) == settings.nameservers
    assert (name == "flower") == bool(settings.flower_password)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    subprocess.run([ROOT / "ops/make-secrets", folder], check=True, capture_output=True, timeout=30)
    return folder


def test_every_secret_is_a_file_that_is_made_and_passwords_are_in_no_variable(secrets: Path) -> None:
    files = {name: Path(secret["file"]) for name, secret in COMPOSE["secrets"].items()}
    assert {Path("ops/secrets") / name for name in files} == set(files.values())
    assert set(files) <= {path.name for path in secrets.iterdir()}
    given = [secret for service in SERVICES.values() for secret in service.get("secrets", [])]
    assert set(files) == set(given)
    variables = [key for service in SERVICES.values() for key in service.get("environment", {})]
    assert [] == [key for key in variables if "PASSWORD" in key and not key.endswith("_FILE")]


def test_secrets_are_readable_in_containers_and_to_nobody_else_on_the_host(secrets: Path) -> None:
    assert 0o700 == stat.S_IMODE(secrets.stat().st_mode)
    assert {0o444} == {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()}


def test_making_secrets_again_keeps_those_there_are(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([ROOT / "ops/make-secrets", secrets], check=True, capture_output=True, timeout=30)
    assert before == {path.name: path.read_text() for path in secrets.iterdir()}
    assert len(before) == len(set(before.values()))


def test_secrets_are_kept_out_of_version_control_and_of_the_image() -> None:
    assert "/ops/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {"ops/secrets", ".env"} <= set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ["127.0.0.1:5555:5555", "127.0.0.1:9090:9090", "127.0.0.1:3000:3000"] == published


def test_every_service_but_the_migration_says_whether_it_is_healthy() -> None:
    assert ["migrate"] == [name for name, service in SERVICES.items() if "healthcheck" not in service]


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_mailq_has_no_rights_it_does_not_need(name: str) -> None:
    service = OURS[name]
    assert (True, ["ALL"], ["no-new-privileges:true"]) == (
        service["read_only"],
        service["cap_drop"],
        service["security_opt"],
    )
    assert "USER 10001" in (ROOT / "ops/Dockerfile").read_text(encoding="utf-8").splitlines()


def test_a_port_that_a_service_is_asked_at_is_one_that_it_opens() -> None:
    for name, service in SERVICES.items():
        asked = re.findall(r"127\.0\.0\.1:(\d+)", " ".join(service.get("healthcheck", {}).get("test", [])))
        assert set(asked) <= set(ports_of(service)), name


def test_every_file_that_a_service_mounts_is_there() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    sources = [volume.partition(":")[0] for volume in mounted]
    assert [] == [source for source in sources if source.startswith("./") and not (ROOT / source).exists()]
    assert set(COMPOSE["volumes"]) == {source for source in sources if not source.startswith("./")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$NAME ${NAME} ${NAME:-x} ${NAME-x} ${NAME:?no} ${NAME:+y}", "given given given given given y"),
        ("${EMPTY}|${EMPTY:-x}|${EMPTY-x}|${EMPTY:+y}|${EMPTY+y}", "|x|||y"),
        ("${NONE}|${NONE:-x}|${NONE-x}|${NONE:+y}|${NONE+y}", "|x|x||"),
        ("$$NAME costs $$5", "$NAME costs $5"),
    ],
)
def test_variables_are_put_in_as_compose_does(text: str, value: str) -> None:
    assert value == interpolate(text, {"NAME": "given", "EMPTY": ""})


@pytest.mark.parametrize("text", ["${NONE:?set it}", "${NONE?set it}", "${EMPTY:?set it}"])
def test_a_variable_that_must_be_set_stops_with_its_reason(text: str) -> None:
    with pytest.raises(ComposeError, match="set it"):
        interpolate(text, {"EMPTY": ""})


def test_without_a_host_name_compose_says_what_to_do() -> None:
    with pytest.raises(ComposeError, match=r"MAILQ_MYHOSTNAME: copy ops/example.env to .env first"):
        compose.load({})


def test_ports_and_names_of_containers_become_those_of_this_machine() -> None:
    place = Place(secrets=Path("/tmp/s"), ports={("web", "80"): 4711, ("db", "5432"): 4712})
    assert "http://127.0.0.1:4711/x" == here("http://127.0.0.1:80/x", "web", place)
    assert "0.0.0.0:80".replace("0.0.0.0:80", "127.0.0.1:4711") == here("0.0.0.0:80", "web", place)
    assert "127.0.0.1:4712 and 127.0.0.1:4711 and 8080" == here("db:5432 and web:80 and 8080", "x", place)
    assert "/tmp/s/one" == here("/run/secrets/one", "web", place)
    assert ["-m", "mailq.cli", "flower", "--port", "4711"] == command_here(
        ["mailq", "flower", "--port", "80"], "web", place
    )[1:]
