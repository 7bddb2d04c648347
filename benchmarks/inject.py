"""Hand over a share of a workload's messages: one of several injectors that start at the same moment.

    python -m benchmarks.inject SPECIFICATION

Says ``ready`` when everything is imported and connected, waits for a line, hands over, and writes one line of JSON:
how long it took, the CPU seconds of this process, and with ``latencies`` the seconds of each call. Then it waits for
the end of its input.
"""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from benchmarks.harness.mail import Mail

Send = Callable[[Sequence[int]], None]


def over_smtp(mail: Mail, port: int) -> Send:
    """Return what hands messages over in one pipelined session: never slower than the server it speaks to."""
    wire = socket.create_connection(("127.0.0.1", port), timeout=120)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = wire.makefile("rb")

    def expect(code: bytes) -> None:
        line = reader.readline()
        while line[3:4] == b"-":
            line = reader.readline()
        if not line.startswith(code):
            raise SystemExit(f"the server says {line!r}")

    expect(b"220")
    wire.sendall(b"EHLO injector.test\r\n")
    expect(b"250")

    def send(numbers: Sequence[int]) -> None:
        for number in numbers:
            recipients = mail.recipients_of(number)
            to = "".join(f"RCPT TO:<{one}>\r\n" for one in recipients)
            wire.sendall(f"MAIL FROM:<sender@sender.test>\r\n{to}DATA\r\n".encode())
            for _ in range(1 + len(recipients)):
                expect(b"250")
            expect(b"354")
            wire.sendall(mail.content(number) + b".\r\n")
            expect(b"250")

    return send


def into_mailq(mail: Mail) -> Send:
    """Return what calls mailq's own API; one transaction a call."""
    from mailq.api import Queue, Submission  # noqa: PLC0415 - only where it is wanted
    from mailq.settings_sources import load  # noqa: PLC0415 - as above

    queue = Queue(settings=load())
    queue.prepare()

    def send(numbers: Sequence[int]) -> None:
        if len(numbers) == 1:
            (number,) = numbers
            content = mail.content(number)
            queue.send(content, sender="sender@sender.test", recipients=mail.recipients_of(number))
            return
        queue.send_many(
            Submission(message=mail.content(one), sender="sender@sender.test", recipients=mail.recipients_of(one))
            for one in numbers
        )

    return send


def into_celery(mail: Mail) -> Send:
    """Return what publishes a task a message."""
    from benchmarks.peers.naive_celery import send as task  # noqa: PLC0415 - only where it is wanted

    def send(numbers: Sequence[int]) -> None:
        for number in numbers:
            task.delay(mail.recipients_of(number), mail.content(number).decode())

    return send


def into_post_office(mail: Mail) -> Send:
    """Return what calls django-post-office; one transaction a message."""
    import django  # noqa: PLC0415 - only where it is wanted

    django.setup()
    from post_office import mail as post_office  # noqa: PLC0415 - Django must be set up first

    def send(numbers: Sequence[int]) -> None:
        for number in numbers:
            body = mail.content(number).partition(b"\r\n\r\n")[2].decode()
            to = mail.recipients_of(number)
            post_office.send(to, "sender@sender.test", subject=f"Your order {number}", message=body)

    return send


def sender(specification: Mapping[str, Any], mail: Mail) -> Send:
    """Return what hands messages over to the system that *specification* tells of."""
    match specification["kind"]:
        case "smtp":
            return over_smtp(mail, specification["port"])
        case "mailq":
            return into_mailq(mail)
        case "celery":
            return into_celery(mail)
        case "post_office":
            return into_post_office(mail)
        case unknown:
            raise SystemExit(f"no such kind of system: {unknown}")


def batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Return *numbers* in pieces of *size*."""
    rest = iter(numbers)
    while piece := list(islice(rest, size)):
        yield piece


def main() -> None:
    """Do what the specification says."""
    specification = json.loads(sys.argv[1])
    mail = Mail(**specification["mail"])
    numbers = range(specification["first"], specification["last"])
    send = sender(specification, mail)
    print("ready", flush=True)
    sys.stdin.readline()
    latencies = []
    began, busy = time.perf_counter(), time.process_time()
    for batch in batches(numbers, specification.get("batch", 1)):
        before = time.perf_counter()
        send(batch)
        latencies.append(time.perf_counter() - before)
    told = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
    if specification.get("latencies"):
        told["latencies"] = latencies
    print(json.dumps(told), flush=True)
    # An application goes on when it has handed over: taking an interpreter down is no part of the run.
    sys.stdin.readline()


if __name__ == "__main__":
    main()
