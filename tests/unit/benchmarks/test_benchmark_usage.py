"""Reading what the kernel counts, and the receiver that takes its time."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.harness.cgroup import CpuGroup, parse_usage
from benchmarks.harness.network import address_of
from benchmarks.harness.slow_sink import FAILING, Book, Session, manner_of
from benchmarks.harness.usage import Process, count_connections, cpu_seconds, memory_bytes, parse_stat, tree


def test_a_process_is_read_whatever_its_name() -> None:
    text = "42 (a) b (c) S 7 42 40 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0"
    assert Process(parent=7, session=40, ticks=110) == parse_stat(text)


KNOWN = {
    1: Process(0, 1, 0),
    10: Process(1, 10, 5),
    11: Process(10, 10, 5),
    12: Process(11, 10, 5),
    13: Process(1, 10, 5),
    20: Process(1, 20, 5),
}


def test_a_tree_has_children_of_children_and_orphans_of_its_session() -> None:
    assert {10, 11, 12, 13} == tree([10], KNOWN)


def test_a_root_that_is_gone_has_no_tree() -> None:
    assert set() == tree([99], KNOWN)


def test_this_process_has_used_time_and_memory() -> None:
    assert cpu_seconds({"me": [os.getpid()]})["me"] > 0
    assert memory_bytes([os.getpid()]) > 1_000_000


TABLE = """\
  sl  local_address rem_address   st tx_queue
   0: 0100007F:1F90 00000000:0000 0A 0
   1: 0100007F:1F90 0100007F:C001 01 0
   2: 0100007F:C001 0100007F:1F90 01 0
   3: 0200007F:1F90 0100007F:C002 01 0
   4: 0100007F:1F90 0100007F:C003 06 0
"""


def test_established_connections_are_counted_on_the_receivers_side() -> None:
    assert 2 == count_connections(TABLE, 8080)


@pytest.mark.parametrize("text", ["1500000000\n", "usage_usec 1500000\nuser_usec 1\n"])
def test_both_kinds_of_control_groups_are_read(text: str) -> None:
    assert 1.5 == parse_usage(text)


def test_where_no_control_group_can_be_made_nothing_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.harness.cgroup._OLD", tmp_path / "none")
    monkeypatch.setattr("benchmarks.harness.cgroup._NEW", tmp_path / "neither")
    with CpuGroup("mailq-bench-test") as group:
        group.add(os.getpid())
        assert group.seconds() is None


def test_destinations_have_addresses_of_their_own_on_loopback() -> None:
    found = [address_of(number) for number in range(1000)]
    assert 1000 == len(set(found))
    assert ["127.0.0.1", "127.0.0.250", "127.0.1.1"] == [found[0], found[249], found[250]]


def test_an_address_beyond_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match="no address"):
        address_of(250 * 250)


def test_failing_destinations_fail_in_every_way_and_the_others_work() -> None:
    manners = [manner_of(number, 15) for number in range(50)]
    assert len(FAILING) == len(set(manners[:15]))
    assert {manner_of(0, 0)} == set(manners[15:])


class Taken:
    """What a receiver noted."""

    def __init__(self) -> None:
        self.counters = (0, 0)
        self.recipients: list[str] = []

    def tell(self, sessions: int, messages: int) -> None:
        self.counters = (sessions, messages)


@contextmanager
def talking(rules: dict[str, float], address: str = "127.0.0.1") -> Iterator[tuple[Taken, list[bytes]]]:
    """Hold one conversation: fill the list with what to say at once, then read it as what was answered."""
    taken = Taken()
    lines: list[bytes] = []
    yield taken, lines
    plain = {"connect_seconds": 0, "dot_seconds": 0, "rtt_seconds": 0, "failing": 0}
    book = Book(plain | rules, tell=taken.tell, note=taken.recipients.append)

    async def talk() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(book), address, 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"".join(lines))
            try:
                async with asyncio.timeout(10):
                    answer = await reader.read(-1)
            except ConnectionResetError:
                answer = b""
            writer.close()
            return answer

    lines[:] = asyncio.run(talk()).splitlines()


ONE = b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<%s>\r\nDATA\r\n"
BODY = b"Subject: x\r\n\r\n" + b"hello\r\n" * 30 + b".\r\n"


@pytest.mark.parametrize("rules", [{}, {"rtt_seconds": 0.01}, {"connect_seconds": 0.01, "dot_seconds": 0.02}])
def test_the_slow_receiver_answers_pipelined_messages_in_order(rules: dict[str, float]) -> None:
    with talking(rules) as (taken, lines):
        lines += [b"EHLO me\r\n", ONE % b"m1@d0.test", BODY, ONE % b"m2@d0.test", BODY, b"QUIT\r\n"]
    assert [b"220", b"250", b"250", b"250", b"250"] == [line[:3] for line in lines[:5]]
    assert [b"250", b"250", b"354", b"250"] * 2 == [line[:3] for line in lines[5:13]]
    assert b"221" == lines[13][:3]
    assert ["m1@d0.test", "m2@d0.test"] == taken.recipients
    assert (1, 2) == taken.counters


def test_a_failure_notice_is_taken_and_not_counted() -> None:
    with talking({}) as (taken, lines):
        lines += [ONE % b"sender@sender.test", BODY, b"QUIT\r\n"]
    assert (1, 0) == taken.counters


def test_a_greylisted_recipient_is_taken_the_next_time() -> None:
    with talking({"failing": 1}) as (taken, lines):
        lines += [ONE % b"m1@d0.test", b"RSET\r\n", ONE % b"m1@d0.test", BODY, b"QUIT\r\n"]
    assert [b"450", b"554", b"250"] == [line[:3] for line in lines[2:5]]
    assert ["m1@d0.test"] == taken.recipients


def test_a_server_with_too_many_connections_says_so_and_closes() -> None:
    with talking({"failing": 2}, "127.0.0.2") as (_, lines):
        lines += [b"EHLO me\r\n"]
    assert [b"421"] == [line[:3] for line in lines]


def test_a_server_that_cuts_takes_nothing() -> None:
    with talking({"failing": 5}, "127.0.0.5") as (taken, lines):
        lines += [ONE % b"m4@d4.test", BODY]
    assert [] == taken.recipients


ROOT = Path(__file__).resolve().parents[3]
ALONE = """
import socket
from benchmarks.harness.network import address_of, enter_private_network

if enter_private_network():
    assert "eth0" not in dict((name, number) for number, name in socket.if_nameindex())
    socket.create_server((address_of(300), 0)).close()
"""


def test_a_private_network_has_loopback_at_all_of_its_addresses_and_no_card() -> None:
    # In a process of its own, since there is no way back; where it is not permitted nothing changes.
    subprocess.run([sys.executable, "-c", ALONE], check=True, timeout=30, env={"PYTHONPATH": str(ROOT)})
