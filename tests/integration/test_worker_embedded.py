"""The worker inside a process: SQLite, a broker in memory, no servers."""

import threading
from datetime import timedelta
from pathlib import Path

from mailq.queue.selectors import Selector
from mailq.testing.smtpd import Script, greylisting, rejecting
from mailq.worker.embedded import embedded
from tests.fakes.fleet import fleet
from tests.fakes.poll import eventually


def test_mail_is_delivered_and_no_thread_is_left(sqlite_url: str, tmp_path: Path) -> None:
    with fleet(sqlite_url, None, tmp_path) as one:
        before = set(threading.enumerate())
        with embedded(one.settings) as runtime:
            one.queue(40, ring=False)
            runtime.ringer.ring("d0.test")
            one.wait_until_all_sent(40)
        left = set(threading.enumerate()) - before
        for thread in left:
            thread.join(10)
        assert [] == [thread.name for thread in left if thread.is_alive() and thread.name.startswith("mailq")]
        assert {f"r{i}@d{i % 20}.test": 1 for i in range(40)} == one.taken()


def test_what_a_server_puts_off_is_tried_again_until_it_is_taken(sqlite_url: str, tmp_path: Path) -> None:
    with fleet(sqlite_url, None, tmp_path, script=greylisting(attempts=2)) as one, embedded(one.settings):
        one.queue(3, ring=False)
        one.wait_until_all_sent(3)
        assert {f"r{i}@d{i}.test": 1 for i in range(3)} == one.taken()


def test_the_sender_is_told_of_a_recipient_that_does_not_exist(sqlite_url: str, tmp_path: Path) -> None:
    maps = ("sender.test=d0.test",)
    script = rejecting("r0@d0.test")
    with fleet(sqlite_url, None, tmp_path, script=script, transport_maps=maps) as one, embedded(one.settings):
        one.queue(1, ring=False)
        (report,) = one.smtp.wait_for(1)
        assert "" == report.sender
        assert ("a@sender.test",) == report.recipients
        assert b"550 5.1.1 User unknown" in report.content


def test_the_sender_is_told_once_of_mail_that_is_late(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery Q-54, scenario 9.18."""
    late = {"transport_maps": ("sender.test=d0.test",), "delay_warning_time": timedelta(seconds=0.1)}
    script = Script(rcpt=lambda address: "450 4.2.0 later" if "r0@d0.test" in address else "")
    with fleet(sqlite_url, None, tmp_path, script=script, **late) as one, embedded(one.settings):
        one.queue(1, ring=False)
        (report,) = one.smtp.wait_for(1)
        assert ("", ("a@sender.test",)) == (report.sender, report.recipients)
        assert b"Action: delayed" in report.content
        (waiting,) = one.store.list_recipients(Selector(recipient="r0@d0.test"), limit=1)
        eventually(lambda: one.store.show(waiting.queue_id).recipients[0].attempts > waiting.attempts + 1)
        assert {"a@sender.test": 1} == one.taken()


def test_the_postmaster_is_told_of_a_session_that_went_wrong(sqlite_url: str, tmp_path: Path) -> None:
    """Source: smtp-delivery C-70, T-40, scenario 10.13."""
    told = {
        "transport_maps": ("sender.test=d0.test",),
        "notify_classes": ("protocol",),
        "error_notice_recipient": "errors@d1.test",
    }
    script = Script(rcpt=lambda address: "503 5.5.1 not now" if "r0@d0.test" in address else "")
    with fleet(sqlite_url, None, tmp_path, script=script, **told) as one, embedded(one.settings):
        one.queue(1, ring=False)
        mail = {delivery.recipients[0]: delivery for delivery in one.smtp.wait_for(2)}
        assert b"Status: 5.5.1" in mail["a@sender.test"].content
        assert "double-bounce@client.test" == mail["errors@d1.test"].sender
        assert b" In:  503 5.5.1 not now\r\n" in mail["errors@d1.test"].content
