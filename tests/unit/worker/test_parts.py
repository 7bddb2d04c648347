from datetime import UTC, datetime

import pytest

from mailq.envelope import DeliveryRequest, Recipient
from mailq.queue.certainty import CertaintyRules, UncertainPolicy
from mailq.queue.messages import AtWork, Lease
from mailq.queue.schedules import Labels
from mailq.status import RecipientId
from mailq.worker.ahead import Part
from mailq.worker.parts import parts_of, transactions_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = CertaintyRules()


def a_request(queue_id: str, *ids: int, verp: str = "") -> DeliveryRequest:
    return DeliveryRequest(
        queue_id=queue_id,
        nexthop="far.test",
        sender="list@home.test",
        recipients=tuple(Recipient(RecipientId(one), f"r{one}@far.test") for one in ids),
        size_bytes=1,
        arrived_at=NOW,
        active_at=NOW,
        verp=verp,
    )


def a_lease(*requests: DeliveryRequest, stumbled: int | None = None, mail_class: str = "") -> Lease:
    return Lease(
        id=1,
        nexthop="far.test",
        owner="worker 1",
        taken_at=NOW,
        requests=requests,
        attempts={},
        expires={},
        full=False,
        stumbles={} if stumbled is None else {RecipientId(stumbled): 1},
        labels={request.queue_id: Labels(mail_class) for request in requests},
    )


def parts(lease: Lease, most: int = 2, rules: CertaintyRules = RULES) -> list[Part]:
    return list(parts_of(lease, list(transactions_of(lease, lambda _: most)), rules))


def test_ordinary_messages_are_named_by_their_id_and_with_others() -> None:
    assert [Part(AtWork("a")), Part(AtWork("b"))] == parts(a_lease(a_request("a", 1), a_request("b", 2, 3)))


def test_a_message_in_several_transactions_is_named_alone_by_its_last_recipient() -> None:
    """Source: smtp-delivery Q-45."""
    expected = [Part(AtWork("a", RecipientId(2)), alone=True), Part(AtWork("a"), alone=True), Part(AtWork("b"))]
    assert expected == parts(a_lease(a_request("a", 3, 1, 2), a_request("b", 4)))


def test_what_was_there_when_a_worker_was_lost_is_named_alone() -> None:
    """Source: smtp-delivery Q-45."""
    lease = a_lease(a_request("a", 1), a_request("b", 2), stumbled=2)
    assert [False, True] == [part.alone for part in parts(lease)]


@pytest.mark.parametrize(
    ("expected", "policy"),
    [(False, UncertainPolicy.RETRY), (True, UncertainPolicy.HOLD), (True, UncertainPolicy.ASSUME_SENT)],
)
def test_mail_about_which_doubt_is_costly_is_named_alone(*, expected: bool, policy: UncertainPolicy) -> None:
    rules = CertaintyRules(by_class={"receipts": policy})
    (part,) = parts(a_lease(a_request("a", 1), mail_class="receipts"), rules=rules)
    assert expected is part.alone


def test_without_a_limit_all_recipients_are_in_one_transaction() -> None:
    lease = a_lease(a_request("a", 1, 2, 3))
    (request,) = transactions_of(lease, lambda _: 0)
    assert 3 == len(request.recipients)


def test_a_sender_for_each_recipient_takes_a_transaction_for_each() -> None:
    """Source: smtp-delivery B-42."""
    lease = a_lease(a_request("a", 1, 2, verp="+="))
    senders = [request.sender for request in transactions_of(lease, lambda _: 50)]
    assert ["list+r1=far.test@home.test", "list+r2=far.test@home.test"] == senders
