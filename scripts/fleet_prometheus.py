"""Prometheus beside the fleet of ``make fleet``, with the configuration that compose gives it."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from scripts.compose import ROOT

Ports = Mapping[tuple[str, str], int]
_SOURCE = ROOT / "ops/prometheus"


def start_prometheus(folder: Path, ports: Ports) -> "subprocess.Popen[bytes] | None":
    """Start it where it is installed, its data and log in *folder*; None where it is not."""
    program = shutil.which("prometheus", path=f"{os.environ['PATH']}:{ROOT}/.venv/servers/usr/bin")
    if program is None or not _SOURCE.is_dir():
        return None
    home = folder / "prometheus"
    shutil.copytree(_SOURCE, home)
    config = home / "prometheus.yml"
    config.write_text(config_here(config.read_text(encoding="utf-8"), ports), encoding="utf-8")
    words = [f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "prometheus.log").open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own arguments
            [program, *words, f"--web.listen-address=127.0.0.1:{ports['prometheus', '9090']}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def config_here(text: str, ports: Ports) -> str:
    """Return a configuration with this machine's ports, and the workers named one by one."""
    config = yaml.safe_load(text)
    for job in config["scrape_configs"]:
        if job.pop("dns_sd_configs", None) is not None:
            workers = [free for (who, _), free in ports.items() if who.startswith("worker-")]
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in workers]}]
    text = yaml.safe_dump(config, sort_keys=False)
    for (service, port), free in ports.items():
        text = re.sub(rf"(?<![\w.-]){service}:{port}\b", f"127.0.0.1:{free}", text)
    return text
