"""A dispatcher dies while it reports: whenever that is, the sender is told exactly once."""

import subprocess
import sys
from datetime import timedelta

import pytest

from mailq.envelope import Notify
from mailq.queue.messages import NewRecipient
from mailq.queue.reports import ReportRules
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.settings import Settings
from tests.fakes.queue_values import a_message, bounced, deferred, finish, recipients_of, sent, take

# Sends the reports that are due, and dies at a point that is told by name.
VICTIM = """
import os, sys
from contextlib import contextmanager
from datetime import timedelta
from mailq.queue import notices
from mailq.queue.engine import Database
from mailq.queue.reports import ReportRules
from mailq.queue.store import Store
from mailq.settings import Settings

url, point = sys.argv[1:]
insert, write = notices.insert_messages, Database.write

def dying_insert(connection, messages):
    if point == "composed":
        os._exit(9)
    ids = insert(connection, messages)
    if point == "queued":
        os._exit(9)
    return ids

@contextmanager
def dying_write(self):
    with write(self) as connection:
        yield connection
    if point == "committed":
        os._exit(9)

notices.insert_messages, Database.write = dying_insert, dying_write
rules = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda _: "home.test")
Store.open(url).send_reports(rules, limit=10, wait=timedelta(0))
"""
END = {"failure": bounced, "success": sent, "delay": lambda one: deferred(one, late=True)}


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        ("failure", "composed"),
        ("failure", "queued"),
        ("failure", "committed"),
        ("success", "queued"),
        ("delay", "queued"),
    ],
)
def test_a_report_is_sent_once_though_its_author_dies(store: Store, point: str, kind: str) -> None:
    """Source: smtp-delivery B-14."""
    wishes = frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})
    store.insert([a_message(recipients=(NewRecipient(address="a@far.test", nexthop="far.test", notify=wishes),))])
    lease = take(store)
    finish(store, [END[kind](one) for one in recipients_of(lease)], lease)
    url = store.engine.url.render_as_string(hide_password=False)
    victim = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", VICTIM, url, point],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (9, "") == (victim.returncode, victim.stderr)
    rules = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda _: "home.test")
    for _ in range(2):
        store.send_reports(rules, limit=10, wait=timedelta(0))
    assert ["ann@home.test"] == [one.address for one in store.list_recipients(Selector(sender=""), limit=10)]
