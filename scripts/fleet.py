"""``make fleet``: the services of docker-compose.yml without Docker, on free ports of loopback."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from mailq.stopping import stop_signals
from scripts.fleet_processes import Fleet
from scripts.fleet_show import show


def introduce(fleet: Fleet) -> Iterator[str]:
    """Yield what somebody needs who wants to look around."""
    yield f"Flower      {fleet.url('flower', '5555')}  user mailq, password {fleet.secret('flower_password')}"
    if "metrics" in fleet.others:
        yield f"Metrics     {fleet.url('metrics', '9108')}/metrics"
    if "prometheus" in fleet.others:
        yield f"Prometheus  {fleet.url('prometheus', '9090')}"
    for worker in fleet.workers:
        yield f"{worker.name}    {fleet.url(worker.name, '9111')}/metrics  log {worker.log}"
    yield "All mail goes to a sink. In another terminal:"
    yield from (f"  export {name}={value}" for name, value in fleet.environment().items() if value)
    program = Path(sys.executable).parent / "mailq"
    yield f"  {program} send --from a@example.org --to b@example.com --subject Hello --text Hi"


def main(arguments: list[str] | None = None) -> int:
    """Run the fleet until TERM or Ctrl-C, or show it at work; return the exit code."""
    parser = argparse.ArgumentParser(description="The services of docker-compose.yml without Docker, on loopback.")
    parser.add_argument(
        "--demo", action="store_true", help="Send mail, add a worker meanwhile, tell their shares, and end."
    )
    parser.add_argument("--messages", type=int, default=5000, help="Of the demonstration.")
    parser.add_argument("--screenshots", type=Path, help="Put pictures of Flower into this folder.")
    options = parser.parse_args(arguments)
    if options.demo:
        return show(messages=options.messages, screenshots=options.screenshots)
    with stop_signals() as stop, Fleet() as fleet:
        for line in introduce(fleet):
            print(line, flush=True)
        print("The fleet is ready. Stop it with Ctrl-C.", flush=True)
        stop.wait()
        print("Stopping: workers finish their sessions.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
