"""Several processes under one command, and real signals to any of them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailq.queue.states import ShownState
from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script
from mailq.testing.workers import environment_of
from tests.fakes.fleet import Fleet, fleet
from tests.fakes.poll import eventually

SECONDS = 30
THREADS = 5
# Each process notes its id in a file of its number, by which a test sees who was begun, and in which order.
PROGRAM = """
import logging, os, signal, sys, time
from pathlib import Path
from mailq.errors import ConfigError, InfrastructureError
from mailq.worker import crew
logging.basicConfig(format="%(message)s", level=logging.INFO)
folder = Path(sys.argv[1])

def note(word):
    with (folder / word).open("a") as file:
        file.write(f"{os.getpid()}\\n")

def wait_for_term(number, word=""):
    signal.signal(signal.SIGTERM, lambda *_: (note(f"term{number}"), sys.exit(0)))
    signal.signal(signal.SIGINT, lambda *_: note(f"int{number}"))
    note(str(number))
    while True:
        signal.pause()

def work(number):
    WORK

SETUP
try:
    sys.exit(crew.Crew(work, 2).run())
except ConfigError as error:
    print(error, file=sys.stderr)
    sys.exit(78)
"""


class Command:
    """A crew of two in a program of its own, and what it leaves behind in a folder."""

    def __init__(self, work: str, folder: Path, *, setup: str = "") -> None:
        self.folder = folder
        lines = PROGRAM.replace("WORK", "\n    ".join(work.splitlines())).replace("SETUP", setup)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", lines, str(folder)], stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def noted(self, word: object) -> list[int]:
        """Ids of the processes that noted *word*, in their order."""
        path = self.folder / str(word)
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_until_noted(self, word: object, times: int = 1) -> list[int]:
        return eventually(lambda: found if len(found := self.noted(word)) >= times else [], within_seconds=SECONDS)

    def exit_code(self) -> int:
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def crew(work: str, folder: Path, *, setup: str = "") -> Iterator[Command]:
    command = Command(work, folder, setup=setup)
    try:
        yield command
    finally:
        # Its processes end when it does.
        command.process.kill()
        command.process.wait()


def is_there(pid: int) -> bool:
    """Tell whether a process runs, of which nobody may have read how it ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(*pids: int) -> None:
    eventually(lambda: not any(is_there(pid) for pid in pids), within_seconds=SECONDS)


def test_the_command_ends_with_success_when_all_its_processes_have(tmp_path: Path) -> None:
    with crew("note(str(number)); return 0", tmp_path) as command:
        assert 0 == command.exit_code()
        assert [1, 1] == [len(command.noted(number)) for number in (0, 1)]


def test_a_process_that_ends_by_itself_with_success_is_not_begun_anew(tmp_path: Path) -> None:
    with crew("note(str(number)) if number else wait_for_term(number)\nreturn 0", tmp_path) as command:
        command.wait_until_noted(0)
        eventually(lambda: "Worker process 2 has ended" in command.log, within_seconds=SECONDS)
        command.process.terminate()
        assert 0 == command.exit_code()
        assert [1, 1] == [len(command.noted(number)) for number in (0, 1)]


def test_a_process_that_fails_is_begun_anew_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    with crew("note(str(number)) if number else wait_for_term(number)\nreturn 1", tmp_path) as command:
        assert len(set(command.wait_until_noted(1, times=3))) == 3
        (first,) = command.wait_until_noted(0)
        assert [1, 2] == [int(n) for n in re.findall(r"process 2 ended with 1; another .* in (\d+) s", command.log)[:2]]
        assert is_there(first)
        command.process.terminate()
        assert 0 == command.exit_code()


def test_an_error_of_ours_is_one_line_and_no_reason_to_give_up(tmp_path: Path) -> None:
    with crew('note("tried")\nraise InfrastructureError("nobody is there")', tmp_path) as command:
        command.wait_until_noted("tried", times=3)
        assert "nobody is there" in command.log
        assert "Traceback" not in command.log


def test_a_process_that_is_killed_is_begun_anew_and_the_others_stay(tmp_path: Path) -> None:
    with crew("wait_for_term(number)", tmp_path) as command:
        (killed,), (other,) = command.wait_until_noted(0), command.wait_until_noted(1)
        os.kill(killed, signal.SIGKILL)
        _, another = command.wait_until_noted(0, times=2)
        assert "process 1 ended with -9; another takes its place in 1 s" in command.log
        command.process.terminate()
        assert 0 == command.exit_code()
        assert ([another], [other]) == (command.noted("term0"), command.noted("term1"))


def test_settings_that_cannot_be_used_end_all_of_it_and_nothing_is_begun_anew(tmp_path: Path) -> None:
    work = 'note("tried")\nif number:\n    raise ConfigError("no such thing")\nwait_for_term(number)'
    with crew(work, tmp_path) as command:
        assert 78 == command.exit_code()
        assert 2 == len(command.noted("tried"))
        assert "no such thing" in command.log
        assert "cannot work with these settings" in command.log
        wait_until_gone(*command.noted("tried"))


def test_the_processes_end_when_the_command_is_killed(tmp_path: Path) -> None:
    with crew("wait_for_term(number)", tmp_path) as command:
        (first,), (second,) = command.wait_until_noted(0), command.wait_until_noted(1)
        command.process.kill()
        command.process.wait()
        wait_until_gone(first, second)
        assert ([first], [second]) == (command.noted("term0"), command.noted("term1"))


def test_the_processes_end_when_the_command_was_killed_after_one_was_begun_anew(tmp_path: Path) -> None:
    with crew("wait_for_term(number)", tmp_path) as command:
        (first,), (second,) = command.wait_until_noted(0), command.wait_until_noted(1)
        os.kill(first, signal.SIGKILL)
        _, another = command.wait_until_noted(0, times=2)
        command.process.kill()
        command.process.wait()
        wait_until_gone(second, another)


def test_each_ctrl_c_reaches_each_process_once(tmp_path: Path) -> None:
    with crew("wait_for_term(number)", tmp_path) as command:
        command.wait_until_noted(0), command.wait_until_noted(1)
        for times in (1, 2):
            command.process.send_signal(signal.SIGINT)
            for number in (0, 1):
                command.wait_until_noted(f"int{number}", times=times)
        command.process.terminate()
        assert 0 == command.exit_code()
        assert [2, 2] == [len(command.noted(f"int{number}")) for number in (0, 1)]


def test_a_terminals_ctrl_c_does_not_reach_the_processes_by_itself(tmp_path: Path) -> None:
    with crew("wait_for_term(number)", tmp_path) as command:
        found = [*command.wait_until_noted(0), *command.wait_until_noted(1)]
        assert sorted(found) == sorted({os.getpgid(pid) for pid in found})


TOLD_WHILE_IT_BEGINS = """
start, asked = crew._FORK.Process.start, []
def start_and_be_told(process):
    asked.append(process)
    MOMENT
crew._FORK.Process.start = start_and_be_told
"""
TELL = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("moment", [f"{TELL}; start(process)", f"start(process); {TELL}"])
def test_a_signal_that_comes_while_processes_are_begun_ends_all_of_them(
    tmp_path: Path, number: int, moment: str
) -> None:
    told = f"if len(asked) == {number}: {moment}\n    else: start(process)"
    with crew("wait_for_term(number)", tmp_path, setup=TOLD_WHILE_IT_BEGINS.replace("MOMENT", told)) as command:
        assert 0 == command.exit_code(), command.log
        wait_until_gone(*command.noted(0), *command.noted(1))


# With PostgreSQL, Redis and mail.


@contextlib.contextmanager
def worker(one: Fleet, folder: Path, *, count: int = 2) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """Run ``mailq worker`` for the time of the block, all its processes ready when entered."""
    log = folder / "command.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "mailq.cli", "worker", "-c", str(THREADS), "-P", str(count)],
            env=os.environ | environment_of(one.settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: log.read_text().count(" ready.") >= count or running.poll() is not None, within_seconds=60)
        assert running.poll() is None, log.read_text()
        yield running, log
    finally:
        running.kill()
        running.wait()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.redis
@pytest.mark.postgres
def test_mail_is_delivered_once_whichever_process_is_killed(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with (
        fleet(postgres_url, redis_server, tmp_path, script=Script(delay_seconds=0.02)) as one,
        worker(one, tmp_path) as (command, log),
    ):
        members = children_of(command.pid)
        assert 2 == len(members)
        assert {"celery-1", "celery-2"} == set(re.findall(r"(celery-\d)@\S+ ready\.", log.read_text()))
        one.queue(20)
        one.wait_until_all_sent(20, timeout_seconds=60)
        # Celery itself would start the whole command once more, in the place of one of its processes.
        os.kill(members[1], signal.SIGHUP)
        # While it has no mail, so that none may be in doubt.
        os.kill(members[0], signal.SIGKILL)
        eventually(lambda: log.read_text().count(" ready.") >= 3, within_seconds=60)
        assert "ended with -9; another takes its place in 1 s" in log.read_text()
        one.queue(200)
        one.wait_until_all_sent(220, timeout_seconds=60)
        assert 220 == sum(one.taken().values())
        assert members[1] in children_of(command.pid)
        command.terminate()
        assert 0 == command.wait(SECONDS), log.read_text()
        wait_until_gone(*members)


@pytest.mark.redis
@pytest.mark.postgres
def test_what_a_killed_process_had_is_taken_up_and_only_what_was_in_flight_comes_twice(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with (
        fleet(postgres_url, redis_server, tmp_path, script=Script(delay_seconds=0.05)) as one,
        worker(one, tmp_path) as (command, _),
    ):
        one.queue(200)
        one.smtp.wait_for(20)
        os.kill(children_of(command.pid)[0], signal.SIGKILL)
        one.wait_until_all_sent(200, timeout_seconds=60)
        taken = one.taken()
        assert {f"r{i}@d{i % 20}.test" for i in range(200)} == set(taken)
        assert THREADS >= sum(taken.values()) - 200


@pytest.mark.redis
@pytest.mark.postgres
def test_killing_the_command_ends_its_processes_and_hands_their_mail_back(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    with (
        fleet(postgres_url, redis_server, tmp_path, script=Script(delay_seconds=0.05)) as one,
        worker(one, tmp_path) as (command, _),
    ):
        members = children_of(command.pid)
        one.queue(1000)
        one.smtp.wait_for(20)
        command.kill()
        command.wait()
        wait_until_gone(*members)
        assert 0 == one.store.counts()[ShownState.ACTIVE]
        assert len(one.taken()) == sum(one.taken().values()) < 1000
