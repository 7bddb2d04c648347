"""A server that took the final dot without an answer, before another took the message in the same attempt."""

from dataclasses import replace

from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.status import Delivered, Stage
from tests.fakes.queue_values import a_message, finish, recipients_of, sent, take, unanswered


def test_mail_that_two_servers_may_have_is_among_what_was_ever_in_doubt(store: Store) -> None:
    """Source: smtp-delivery T-36."""
    doubted, _plain = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    lease = take(store)
    first, second = recipients_of(lease)
    silent = replace(unanswered(), reason=f"lost connection while {Stage.END_OF_DATA.value}")
    twice = sent(first)
    assert isinstance(twice.outcome, Delivered)
    finish(store, [replace(twice, outcome=replace(twice.outcome, earlier=(silent,))), sent(second)], lease)
    assert [doubted] == [one.queue_id for one in store.list_recipients(Selector(ever_uncertain=True), limit=10)]
    assert [] == store.list_recipients(Selector(uncertain=True), limit=10)
