"""Reports and envelope senders by recipient, from the api to a server's ear: rows B-15, B-32, B-40 to B-42."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailq.api import Queue
from mailq.queue.states import ShownState
from mailq.testing.smtp_scripts import DEFAULT_EXTENSIONS
from mailq.testing.smtpd import Delivery, Script, ScriptedSmtpServer, rejecting
from mailq.worker.embedded import embedded
from tests.fakes.fleet import Fleet, fleet
from tests.fakes.poll import eventually

TO_US = ("sender.test=d0.test",)


@contextmanager
def world(url: str, folder: Path, script: Script | None = None, **fields: Any) -> Iterator[tuple[Fleet, Queue]]:
    """Run an embedded worker against one server for all domains, and open a queue on it."""
    maps = TO_US + fields.pop("transport_maps", ())
    with (
        fleet(url, None, folder, script=script, transport_maps=maps, **fields) as one,
        embedded(one.settings) as runtime,
    ):
        yield one, Queue(settings=one.settings, store=runtime.store)


def send(queue: Queue, *to: str, **options: Any) -> str:
    return queue.send(b"From: a@sender.test\r\n\r\nHello\r\n", recipients=to, sender="a@sender.test", **options)


def reports(taken: Sequence[Delivery]) -> list[Delivery]:
    return [one for one in taken if not one.sender]


def test_a_server_without_dsn_leaves_the_report_to_us(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery B-32, scenario 10.10."""
    plain = Script(extensions=tuple(word for word in DEFAULT_EXTENSIONS if word != "DSN"))
    with world(sqlite_url, tmp_path, plain) as (one, queue):
        queue_id = send(queue, "x@d1.test", notify=["success"])
        (report,) = reports(one.smtp.wait_for(2))
        assert ("a@sender.test",) == report.recipients
        assert b"Action: relayed\r\nStatus: 2." in report.content
        assert queue_id.encode() in report.content


def test_a_server_with_dsn_is_left_to_report(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery B-32, scenario 10.11."""
    extensions = (*(word for word in DEFAULT_EXTENSIONS if word != "DSN"), "DSN")
    with world(sqlite_url, tmp_path, Script(extensions=extensions)) as (one, queue):
        queue_id = send(queue, "x@d1.test", notify=["success"], envid="e 1")
        (taken,) = one.smtp.wait_for(1)
        assert "ENVID=e+201" in taken.mail_parameters
        assert "NOTIFY=SUCCESS" in taken.rcpt_parameters[0]
        eventually(lambda: {ShownState.SENT} == set(queue.status(queue_id).values()))
        assert [] == queue.store.due_reports(limit=10, wait=timedelta(0))


@pytest.mark.parametrize(("assumed", "action"), [(True, b"delivered"), (False, b"relayed")])
def test_what_lmtp_took_is_in_the_mailbox(sqlite_url: str, tmp_path: Path, *, assumed: bool, action: bytes) -> None:
    """Source: smtp-delivery B-27; postconf(5) lmtp_assume_final."""
    plain = Script(extensions=("PIPELINING",))
    with ScriptedSmtpServer(plain, lmtp=True) as mailboxes:
        route = (f"here.test=lmtp:[127.0.0.1]:{mailboxes.port}",)
        with world(sqlite_url, tmp_path, transport_maps=route, lmtp_assume_final=assumed) as (one, queue):
            send(queue, "x@here.test", notify=["success"])
            (report,) = one.smtp.wait_for(1)
            assert b"Action: " + action in report.content


def test_each_recipient_is_written_to_by_a_sender_of_its_own(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery B-40, B-42, Q-15, scenario 10.14; no server is asked to do it, even one that could."""
    script = Script(extensions=(*DEFAULT_EXTENSIONS, "XVERP"))
    with world(sqlite_url, tmp_path, script) as (one, queue):
        queue_id = send(queue, "x@d1.test", "y@d1.test", verp=True)
        taken = one.smtp.wait_for(2)
        assert {("a+x=d1.test@sender.test", ("x@d1.test",)), ("a+y=d1.test@sender.test", ("y@d1.test",))} == {
            (each.sender, each.recipients) for each in taken
        }
        assert not any("XVERP" in each.mail_parameters for each in taken)
        assert "a@sender.test" == queue.show(queue_id).sender


def test_a_bounce_comes_to_the_address_that_names_the_recipient(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery B-42, scenario 10.14."""
    with world(sqlite_url, tmp_path, rejecting("x@d1.test", "y@d1.test")) as (one, queue):
        send(queue, "x@d1.test", "y@d1.test", verp="-=")
        taken = one.smtp.wait_for(2)
        assert {("a-x=d1.test@sender.test",), ("a-y=d1.test@sender.test",)} == {each.recipients for each in taken}


def test_with_soft_bounce_nothing_is_returned_and_nothing_expires(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery B-15, Q-53."""
    soft = {"soft_bounce": True, "maximal_queue_lifetime": timedelta(0)}
    with world(sqlite_url, tmp_path, rejecting("x@d1.test"), **soft) as (one, queue):
        queue_id = send(queue, "x@d1.test")
        eventually(lambda: queue.show(queue_id).recipients[0].attempts > 2)
        assert queue.show(queue_id).recipients[0].finished_at is None
        assert [] == one.smtp.deliveries


def test_each_recipient_may_have_a_wish_of_its_own(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery B-01, B-17, B-33, scenario 10.02."""
    names = ["x@d1.test", "y@d1.test", "z@d1.test"]
    with world(sqlite_url, tmp_path, rejecting(*names)) as (one, queue):
        send(queue, *names, notify={"x@d1.test": ["never"], "y@D1.test": ["failure"]})
        (report,) = one.smtp.wait_for(1)
        named = [name for name in names if f"Final-Recipient: rfc822; {name}\r\n".encode() in report.content]
        assert ["y@d1.test", "z@d1.test"] == named
