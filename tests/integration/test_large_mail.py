"""Large mail, from a file to many servers at once, without a worker's memory growing with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from mailq.api import Queue
from mailq.errors import ContentError, EnvelopeError
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.submission import Submission
from tests.fakes.queue_values import unsynced

HEAD = (
    b"From: Ann <ann@home.test>\nTo: bob@far.test\nBcc: eve@far.test\nSubject: much\n"
    b"Date: Sun, 01 Mar 2026 12:00:00 +0000\nMessage-ID: <1@home.test>\n\n"
)
LINE = b"0123456789" * 7 + b"\n"
MEGABYTE = 1_000_000
SESSIONS = 8
# What 8 sessions may hold at a time, with room for what the allocator keeps; 8 messages of 50 MB would be 400 MB.
GROWTH_LIMIT_KB = 24_000


def a_file(folder: Path, size: int) -> Path:
    path = folder / f"{size}.eml"
    with path.open("wb") as file:
        file.write(HEAD)
        for _ in range(size // len(LINE) + 1):
            file.write(LINE)
    return path


def a_queue(url: str, **settings: object) -> Queue:
    return Queue(
        settings=Settings(database_url=url, myhostname="home.test", message_size_limit_bytes=0, **settings),
        store=unsynced(Store.open(url)),
        ring=lambda nexthops: None,
    )


def stored(queue: Queue, queue_id: str) -> bytes:
    with queue.store.bodies.open(queue_id) as stream:
        return stream.read()


def test_a_file_is_queued_as_the_same_message_in_memory_is(store_url: str, tmp_path: Path) -> None:
    queue, path = a_queue(store_url), a_file(tmp_path, MEGABYTE)
    from_path = queue.send(content=path)
    with path.open("rb") as file:
        from_file = queue.send(content=file)
    in_memory = queue.send(path.read_bytes())
    texts = [stored(queue, one) for one in (from_path, from_file, in_memory)]
    assert [texts[0]] * 3 == texts
    views = [queue.show(one) for one in (from_path, from_file, in_memory)]
    assert [["bob@far.test", "eve@far.test"]] * 3 == [[one.address for one in view.recipients] for view in views]
    assert ["ann@home.test"] * 3 == [view.sender for view in views]
    assert not any(b"Bcc" in each for each in texts)
    queue.store.close()


def test_a_key_names_the_same_message_whether_it_came_from_a_file_or_not(store_url: str, tmp_path: Path) -> None:
    queue, path = a_queue(store_url), a_file(tmp_path, MEGABYTE)
    first = queue.send(content=path, idempotency_key="7")
    assert first == queue.send(path.read_bytes(), idempotency_key="7") == queue.send(content=path, idempotency_key="7")
    queue.store.close()


def test_what_cannot_be_read_or_comes_with_more_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    queue, path = a_queue(sqlite_url), a_file(tmp_path, 1000)
    with pytest.raises(ContentError, match="no such"):
        queue.send(content=tmp_path / "no such")
    with pytest.raises(ContentError, match="binary mode"), path.open() as opened:
        queue.send(content=opened)  # type: ignore[arg-type]  # the mistake that is told of
    with pytest.raises(EnvelopeError, match="content is the whole message"):
        queue.check(Submission(content=path, subject="and more"))
    queue.store.close()


def test_the_limit_holds_for_files_too(sqlite_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=sqlite_url, message_size_limit_bytes=1000)
    queue = Queue(settings=settings, ring=lambda nexthops: None)
    with pytest.raises(ContentError, match="message_size_limit_bytes"):
        queue.send(content=a_file(tmp_path, MEGABYTE))
    queue.close()


# Everything else that a process holds is there in both runs, so the difference is what the content costs.
DELIVER = """
import contextlib, json, resource, socket, sys, threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest, Recipient
from mailq.queue.store import Store
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.status import Delivered, RecipientId
from mailq.worker.wiring import SystemClock

url, queue_id, size, sessions = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
settings = Settings(myhostname="home.test", tls_security_level="none", network="loopback")
store, clock = Store.open(url), SystemClock()


def serve(listener):
    connection, _ = listener.accept()
    with connection, contextlib.suppress(ConnectionResetError):
        talk(connection)


def talk(connection):
    buffer, tail, taken, in_content = bytearray(65536), b"", 0, False
    connection.sendall(b"220 sink\\r\\n")
    while count := connection.recv_into(buffer):
        if in_content:
            taken += count
            tail = (tail + buffer[max(0, count - 5):count])[-5:]
            if tail == b"\\r\\n.\\r\\n":
                in_content = False
                connection.sendall(b"250 %d\\r\\n" % taken)
            continue
        command = bytes(buffer[:4]).upper()
        if command == b"DATA":
            in_content, tail, taken = True, b"", 0
        connection.sendall({b"DATA": b"354 go on\\r\\n", b"QUIT": b"221 bye\\r\\n"}.get(command, b"250 ok\\r\\n"))


def one(number):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        request = DeliveryRequest(
            queue_id=queue_id, nexthop=f"[127.0.0.1]:{listener.getsockname()[1]}", sender="a@home.test",
            recipients=(Recipient(RecipientId(number), "b@far.test"),), size_bytes=size,
            arrived_at=datetime.now(UTC), active_at=datetime.now(UTC),
        )
        ports = Ports(
            clock=clock, resolver=DnsResolver(settings), connector=SocketConnector(settings),
            bodies=store.bodies, rng=Random(1),
        )
        report = deliver(
            request, ports=ports, settings=settings, sessions=SessionCache(clock), on_settled=lambda _: None
        )
    (outcome,) = report.outcomes.values()
    return int(outcome.reply.lines[0][4:]) if isinstance(outcome, Delivered) else str(outcome)


with ThreadPoolExecutor(sessions) as pool:
    taken = list(pool.map(one, range(sessions)))
print(json.dumps({"taken": taken, "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def deliver_to_many(queue: Queue, url: str, queue_id: str) -> int:
    """Deliver a message to many servers at once in a process of its own; return the most memory that took, in KB."""
    size = queue.show(queue_id).size_bytes
    arguments = [sys.executable, "-c", DELIVER, url, queue_id, str(size), str(SESSIONS)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=False)
    assert "" == done.stderr
    told = json.loads(done.stdout)
    assert [size + 3] * SESSIONS == told["taken"]
    return int(told["peak_kb"])


def test_eight_sessions_with_fifty_megabytes_each_take_little_more_memory_than_with_none(
    store_url: str, tmp_path: Path
) -> None:
    queue = a_queue(store_url)
    small = queue.send(content=a_file(tmp_path, 1000))
    large = queue.send(content=a_file(tmp_path, 50 * MEGABYTE))
    with queue.store.engine.connect() as connection:
        assert 50 * MEGABYTE // 262_144 <= connection.execute(text("SELECT count(*) FROM mailq_content_part")).scalar()
    peaks = [deliver_to_many(queue, store_url, one) for one in (small, large)]
    assert peaks[1] - peaks[0] < GROWTH_LIMIT_KB
    queue.store.close()
