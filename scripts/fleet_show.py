"""``make fleet-show``: mail flows, a worker is added, and it takes its share at once; Flower shows who does what.

What is told is counted by those who know: shares by the attempts in SQL,
deliveries by the sink, tasks by Flower.

Invariant: it says that all went well only if every recipient was sent to once, each worker took part from
the moment it was there, and Flower shows nexthops and counts.
"""

import base64
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from mailq.api import Queue
from mailq.submission import Submission
from scripts.fleet_processes import Fleet, Running

_DOMAINS = 50
_PATIENCE_SECONDS = 300.0
_AT_ONCE = timedelta(seconds=5)
_SHARES = (
    "SELECT owner, count(*) FROM mailq_attempt WHERE finished_at >= :since AND finished_at < :until GROUP BY owner"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """How much is sent, and how slow the receivers are.

    Attributes:
        messages: Queued at first; the worker is added when an eighth of them was sent, and for as long as it needs
            to start, others follow, as from applications that go on.
        sessions: Of each worker.
        think_seconds: Before a receiver takes a message.
    """

    messages: int
    sessions: int
    think_seconds: float

    @property
    def variables(self) -> dict[str, str]:
        """What the compose file is told."""
        return {"MAILQ_WORKER_CONCURRENCY": str(self.sessions), "MAILQ_SINK_THINK": f"{self.think_seconds}s"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        queued: Messages, of one recipient each.
        before: Attempts by worker until the one that was added made its first.
        at_once: Those of the five seconds that followed.
        after: Those from then on.
        sent: Attempts that sent, by recipient.
        taken: Messages the sink took.
        tasks: What Flower shows of tasks: name, arguments, result.
    """

    queued: int
    before: Mapping[str, int]
    at_once: Mapping[str, int]
    after: Mapping[str, int]
    sent: Counter[str]
    taken: int
    tasks: list[dict[str, Any]]

    def problems(self) -> Iterator[str]:
        """Yield what was not as promised."""
        if len(self.sent) != self.queued or set(self.sent.values()) != {1}:
            most = max(self.sent.values(), default=0)
            yield f"{len(self.sent)} of {self.queued} recipients were sent to, some {most} times"
        if self.taken != self.queued:
            yield f"the sink took {self.taken} messages of {self.queued}"
        fair = 1 / len(self.after)
        both = {name: count + self.after[name] for name, count in self.at_once.items()}
        for when, shares in {"at once": self.at_once, "from then on": both}.items():
            newest = list(shares.values())[-1]
            if newest < sum(shares.values()) * fair / 2:
                yield f"the new worker did {newest} of {sum(shares.values())} attempts {when}"
        nexthops = {task["kwargs"] + task["args"] for task in self.tasks}
        if not any(f"d{number}.test" in text for text in nexthops for number in range(_DOMAINS)):
            yield "Flower shows no nexthop"
        if not any("sent" in str(task["result"]) for task in self.tasks):
            yield "Flower shows no counts"
        if re.search(r"@(d\d+|sender)\.test", str(self.tasks)):
            yield "Flower shows an address"


def show(*, messages: int, screenshots: Path | None = None) -> int:
    """Run the demonstration, tell its figures, and return the exit code."""
    trial = Trial(messages=messages, sessions=20, think_seconds=0.3)
    with Fleet(variables=trial.variables) as fleet:
        outcome = run(fleet, trial, say=print, meanwhile=lambda: _picture(fleet, screenshots))
    for line in table(outcome):
        print(line)
    problems = list(outcome.problems())
    for problem in problems:
        print(f"NOT AS PROMISED: {problem}.")
    if not problems:
        print(f"Each of {outcome.queued} recipients was sent to once, and the new worker took its share at once.")
    return 1 if problems else 0


def _picture(fleet: Fleet, folder: Path | None) -> None:
    if folder is not None:
        from scripts.fleet_pictures import take_pictures  # noqa: PLC0415 - the browser is not always there

        for path in take_pictures(fleet, folder):
            print(f"Flower is shown in {path}.")


def run(
    fleet: Fleet, trial: Trial, *, say: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None
) -> Outcome:
    """Send the mail, add a worker meanwhile, and return what came of it.

    Args:
        fleet: Idle.
        trial: How much of what.
        say: Told what happens, a line at a time.
        meanwhile: Called once all workers work.
    """
    with closing(Queue(settings=fleet.settings)) as queue:
        started_at = datetime.now(UTC)
        queue.send_many(_submissions(0, trial.messages))
        say(f"{trial.messages} messages to {_DOMAINS} domains are queued; {len(fleet.workers)} workers are at it.")
        _wait(lambda: _sent(queue) >= trial.messages // 8)
        added = fleet.add_worker(wait=False)
        queued, added_at = _keep_queued(queue, added, trial.messages)
        say(f"The worker that was added then has sent its first, of {queued} messages that were queued by now.")
        meanwhile()
        _wait(lambda: _sent(queue) >= queued)
        ended_at = datetime.now(UTC)
        say(f"All were sent after {(ended_at - started_at).total_seconds():.1f} s.")
        names = {str(worker.process.pid): worker.name for worker in fleet.workers}
        return Outcome(
            queued=queued,
            before=_shares(queue, names, started_at, added_at),
            at_once=_shares(queue, names, added_at, added_at + _AT_ONCE),
            after=_shares(queue, names, added_at + _AT_ONCE, ended_at),
            sent=_sent_once(queue),
            taken=_taken(fleet),
            tasks=_flower_tasks(fleet),
        )


def _keep_queued(queue: Queue, added: Running, wanted: int) -> tuple[int, datetime]:
    """Queue more for as long as a worker needs to start; return how many were queued in all, and when it was there."""
    queued = wanted
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (added_at := _first_attempt(queue, added)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{added.name} does nothing: {added.log.read_text(encoding='utf-8')[-2000:]}")
        missing = wanted - (queued - _sent(queue))
        if missing >= _DOMAINS:
            queue.send_many(_submissions(queued, missing))
            queued += missing
        time.sleep(0.05)
    return queued, added_at


def table(outcome: Outcome) -> Iterator[str]:
    """Yield the shares as lines."""
    yield f"{'worker':<12}{'before':>10}{'first 5 s':>12}{'after':>10}"
    for name in outcome.after:
        columns = (outcome.before[name], outcome.at_once[name], outcome.after[name])
        yield f"{name:<12}{columns[0]:>10}{columns[1]:>12}{columns[2]:>10}"


def _submissions(first: int, count: int) -> Iterable[Submission]:
    for number in range(first, first + count):
        yield Submission(
            sender="a@sender.test",
            to=(f"r{number}@d{number % _DOMAINS}.test",),
            subject=f"Message {number}",
            text="Hello.\n",
        )


def _sent(queue: Queue) -> int:
    with queue.store.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM mailq_recipient WHERE state = 'sent'")).scalar_one())


def _wait(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {_PATIENCE_SECONDS:.0f} s")
        time.sleep(0.1)


def _shares(queue: Queue, names: Mapping[str, str], since: datetime, until: datetime) -> dict[str, int]:
    """Return how many attempts each worker made, in the order the workers were started."""
    found = dict.fromkeys(names.values(), 0)
    with queue.store.engine.connect() as connection:
        for owner, count in connection.execute(text(_SHARES), {"since": since, "until": until}):
            for pid, name in names.items():
                found[name] += count if f":{pid}:" in f":{owner}:" else 0
    return found


def _first_attempt(queue: Queue, worker: Running) -> datetime | None:
    """Return when a worker that was just started finished its first attempt."""
    query = text("SELECT min(finished_at) FROM mailq_attempt WHERE ':' || owner || ':' LIKE :owner")
    with queue.store.engine.connect() as connection:
        found: datetime | None = connection.scalar(query, {"owner": f"%:{worker.process.pid}:%"})
        return found


def _sent_once(queue: Queue) -> Counter[str]:
    query = "SELECT r.address, count(*) FROM mailq_attempt a JOIN mailq_recipient r ON r.id = a.recipient_id"
    with queue.store.engine.connect() as connection:
        rows = connection.execute(text(f"{query} WHERE a.outcome = 'sent' GROUP BY r.address"))
        return Counter({str(address): int(count) for address, count in rows})


def _taken(fleet: Fleet) -> int:
    """Ask the sink to end, and return how many messages it says it took."""
    sink = fleet.others["sink"]
    sink.process.terminate()
    sink.process.wait(30)
    return int(sink.log.read_text(encoding="utf-8").strip().splitlines()[-1].split()[0])


def _flower_tasks(fleet: Fleet) -> list[dict[str, Any]]:
    login = base64.b64encode(f"mailq:{fleet.secret('flower_password')}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - a URL of ours
        f"{fleet.url('flower', '5555')}/api/tasks?limit=1000", headers={"Authorization": f"Basic {login}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - a URL of ours
        return list(json.load(response).values())
