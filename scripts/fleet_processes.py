"""The services of docker-compose.yml as processes of this machine, on free ports of loopback.

PostgreSQL and Redis are this machine's programs, in temporary folders. What
mailq's own services run, with which variables and with which health check, is
read from docker-compose.yml; the sink's profile is on, so mail goes nowhere
else. Prometheus is added where it is installed; Grafana is not.

Invariant: only processes that were started here are ended, and all of them are.
"""

import contextlib
import os
import re
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mailq.errors import InfrastructureError
from mailq.settings import Settings
from mailq.settings_sources import load as load_settings
from mailq.testing.postgres import PostgresServer
from scripts.compose import ROOT, Place, command_here, environment_here, load, ports_of, read_env_file
from scripts.fleet_prometheus import start_prometheus

_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
_FIRST_WORKERS = 2
# Below those that the system chooses from, on Linux and elsewhere.
_PORTS = range(15_000, 32_000)
_ALONE = ("metrics", "flower", "sink")


@dataclass(frozen=True, slots=True)
class Running:
    """One process of a service.

    Attributes:
        service: Its name in the compose file.
        name: The same, with a number where there are several.
        log: What it wrote.
    """

    service: str
    name: str
    process: "subprocess.Popen[bytes]"
    log: Path


class Fleet:
    """The services, from ``with`` to its end.

    Args:
        variables: Of the compose file, besides those of ``ops/example.env``.
        say: Told what happens, a line at a time.
    """

    def __init__(self, *, variables: Mapping[str, str] | None = None, say: Callable[[str], None] = print) -> None:
        self._say = say
        self._stack = ExitStack()
        self._variables = {**read_env_file(ROOT / "ops/example.env"), **(variables or {})}
        self.workers: list[Running] = []
        self.others: dict[str, Running] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailq-fleet-")))
            self._place_services()
            self._start_stores(stack)
            self._run_migration()
            for name in _ALONE:
                if name in self.compose["services"]:
                    self.others[name] = self._start(stack, name)
            self._stack = stack.pop_all()
        with self._undone_on_error():
            for _ in range(_FIRST_WORKERS):
                self.add_worker(wait=False)
            for running in (*self.others.values(), *self.workers):
                self.wait_until_healthy(running)
            self._start_prometheus()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def settings(self) -> Settings:
        """What a program needs that queues mail here."""
        return load_settings(environ=self._environment("worker"))

    def url(self, service: str, port: str) -> str:
        """Return where a service's page is."""
        return f"http://127.0.0.1:{self.place.ports[service, port]}"

    def secret(self, name: str) -> str:
        """Return what stands in a secret's file."""
        return (self.place.secrets / name).read_text(encoding="utf-8").strip()

    def environment(self) -> dict[str, str]:
        """Return the variables for ``mailq`` at a shell."""
        return self._environment("migrate")

    def add_worker(self, *, wait: bool = True) -> Running:
        """Start one worker more, by the very command of the others, and by default wait until it is healthy."""
        number = len(self.workers) + 1
        # In a container each has a port and a host name of its own.
        self.place.ports[f"worker-{number}", "9111"] = _free_port()
        running = self._start(self._stack, "worker", number=number)
        self.workers.append(running)
        if wait:
            self.wait_until_healthy(running)
        return running

    def wait_until_healthy(self, running: Running) -> None:
        """Repeat the service's own health check until it succeeds.

        Raises:
            InfrastructureError: The process ended, or is not healthy in time; the text holds its log.
        """
        check = self.compose["services"][running.service]["healthcheck"]["test"][1:]
        command = command_here(check, running.service, self._place_of(running.name))
        deadline = time.monotonic() + _READY_SECONDS
        while not _succeeds(command):
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise InfrastructureError(f"{running.name} is not healthy:\n{running.log.read_text()[-3000:]}")
            time.sleep(0.1)

    def _place_services(self) -> None:
        make = [str(ROOT / "ops/make-secrets"), str(self._folder / "secrets")]
        subprocess.run(make, check=True, capture_output=True, timeout=30)  # noqa: S603 - our own script
        address = "127.0.0.1"
        self.compose = load({**self._variables, "MAILQ_SINK_ADDRESS": address})
        ports = {
            (name, port): _free_port()
            for name, service in self.compose["services"].items()
            for port in ports_of(service)
        }
        self.place = Place(secrets=self._folder / "secrets", ports=ports)
        trial = {
            "MAILQ_SINK_ADDRESS": address,
            "MAILQ_NETWORK": "loopback",
            "MAILQ_INET_PROTOCOLS": "ipv4",
            "MAILQ_NAMESERVERS": f"{address}:{ports['sink', '5353']}",
            "MAILQ_TCP_PORT": str(ports["sink", "2525"]),
        }
        self.compose = load({**trial, **self._variables, **trial})

    def _start_stores(self, stack: ExitStack) -> None:
        postgres = stack.enter_context(PostgresServer(fsync=False))
        postgres.create_database("mailq")
        port = int(re.search(r":(\d+)/", postgres.url())[1])  # type: ignore[index]  # its URLs have a port
        self.place.ports["postgres", "5432"] = port
        for name, host in {"database_url": "@postgres/", "broker_url": "@redis:6379/"}.items():
            path = self.place.secrets / name
            here = f"@127.0.0.1:{self.place.ports[('postgres', '5432') if 'postgres' in host else ('redis', '6379')]}/"
            path.chmod(0o600)
            path.write_text(path.read_text(encoding="utf-8").replace(host, here), encoding="utf-8")
        redis = self._start(stack, "redis")
        self._say("PostgreSQL and Redis are up.")
        self.others["redis"] = redis

    def _run_migration(self) -> None:
        service = self.compose["services"]["migrate"]
        command = command_here(service["command"], "migrate", self.place)
        done = subprocess.run(  # noqa: S603 - the compose file's own command
            command,
            env=_clean() | self._environment("migrate"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise InfrastructureError(f"the migration failed:\n{done.stdout}{done.stderr}")
        self._say(done.stdout.strip())

    def _start(self, stack: ExitStack, service: str, *, number: int = 0) -> Running:
        name = f"{service}-{number}" if number else service
        place = self._place_of(name)
        command = command_here(self.compose["services"][service]["command"], service, place)
        if number:
            command += ["--name", name]
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - the compose file's own command
                command,
                env=_clean() | environment_here(self.compose["services"][service], service, place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
            )
        stack.callback(stop_process, process)
        return Running(service, name, process, log)

    def _place_of(self, name: str) -> Place:
        """Return the place of one of several processes of a service, whose own ports stand under its name."""
        service = name.rpartition("-")[0]
        own = (
            {(service, port): free for (who, port), free in self.place.ports.items() if who == name} if service else {}
        )
        return Place(secrets=self.place.secrets, ports={**self.place.ports, **own})

    def _environment(self, service: str) -> dict[str, str]:
        return environment_here(self.compose["services"][service], service, self.place)

    def _start_prometheus(self) -> None:
        started = start_prometheus(self._folder, self.place.ports)
        if started is not None:
            self._stack.callback(stop_process, started)
            self.others["prometheus"] = Running("prometheus", "prometheus", started, self._folder / "prometheus.log")

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._stack.close()
            raise


def _clean() -> dict[str, str]:
    """Return this process's environment without settings of mailq, and with what a checkout needs to be imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _succeeds(command: list[str]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0  # noqa: S603 - the compose file's own
    return False


def stop_process(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and kill it when it takes too long."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    """Return a port that nobody has, and that the system gives to nobody until its service is up.

    One that the system would choose may be an outgoing connection's a moment later.
    """
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port
