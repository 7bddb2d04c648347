"""Read docker-compose.yml as compose does, and say how a service runs as a plain process here. Pure but for reading.

What is different on one machine is put in place of what compose gives: a
port of a container becomes a free one, a service's name or ``0.0.0.0``
becomes loopback, a secret's path becomes its file. Everything else is run
as it stands, so that what is tried here is what compose runs.

Source: the Compose Specification, "Interpolation" and "Secrets".
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)(?:(:?[-?+])([^}]*))?\})")
_SECRETS = "/run/secrets/"


class ComposeError(ValueError):
    """The file wants a variable that is not set."""


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file as ``--env-file`` takes it: NAME=value lines and comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def load(environ: Mapping[str, str], path: Path = FILE) -> dict[str, Any]:
    """Return the compose file with *environ* put into it.

    Raises:
        ComposeError: A variable must be set, and is not.
    """
    found: dict[str, Any] = _interpolated(yaml.safe_load(path.read_text(encoding="utf-8")), environ)
    return found


def _interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(one, environ) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolated(one, environ) for one in value]
    return interpolate(value, environ) if isinstance(value, str) else value


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """Return *text* with its variables replaced; ``$$`` is a dollar sign.

    Raises:
        ComposeError: ``${NAME:?why}`` names one that is not set.
    """

    def replaced(found: re.Match[str]) -> str:
        dollar, plain, name, rule, word = found.groups()
        if dollar:
            return "$"
        value = environ.get(plain or name)
        if rule is None:
            return value or ""
        given = value is not None and (bool(value) or not rule.startswith(":"))
        if rule.endswith("?") and not given:
            raise ComposeError(f"{name}: {word}")
        if rule.endswith("+"):
            return word if given else ""
        return value or "" if given else word

    return _VARIABLE.sub(replaced, text)


@dataclass(frozen=True, slots=True)
class Place:
    """What stands in for compose on this machine.

    Attributes:
        secrets: The folder of the secrets' files.
        ports: The free port in place of a service's own, by the service's name and that port.
    """

    secrets: Path
    ports: Mapping[tuple[str, str], int]


def ports_of(service: Mapping[str, Any]) -> list[str]:
    """Return the ports inside a service's container that it publishes or exposes."""
    published = [port.rsplit(":", 1)[-1] for port in service.get("ports", [])]
    return list(dict.fromkeys([*published, *service.get("expose", [])]))


def here(text: str, name: str, place: Place) -> str:
    """Return a word of the service *name*, of its command or environment, as it is on this machine."""
    for (service, port), free in place.ports.items():
        text = re.sub(rf"(?<![\w.-]){service}:{port}\b", f"127.0.0.1:{free}", text)
        if service == name:
            text = re.sub(rf"(?<![\d.]){port}(?!\d)", str(free), text)
    return text.replace("0.0.0.0", "127.0.0.1").replace(_SECRETS, f"{place.secrets}/")  # noqa: S104 - it is taken away


def command_here(words: Sequence[str], name: str, place: Place) -> list[str]:
    """Return a command of the image as one of this interpreter's environment."""
    programs = {"mailq": [sys.executable, "-m", "mailq.cli"], "python": [sys.executable]}
    first, *rest = words
    return [*programs.get(first, [first]), *(here(word, name, place) for word in rest)]


def environment_here(service: Mapping[str, Any], name: str, place: Place) -> dict[str, str]:
    """Return the environment of a service on this machine."""
    return {key: here(str(value), name, place) for key, value in service.get("environment", {}).items()}
