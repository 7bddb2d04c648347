"""The worker inside a process: SQLite, a broker in memory, no servers."""

import threading
from pathlib import Path

from mailq.testing.smtpd import greylisting, rejecting
from mailq.worker.embedded import embedded
from tests.fakes.fleet import fleet


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
