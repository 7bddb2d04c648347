"""Which server next: limits, plaintext once more, and what kept sessions cost."""

import pytest

from mailq.delivery.plan import ConnectPlan
from mailq.delivery.report import SessionReport
from mailq.status import Endpoint

SERVERS = tuple(Endpoint(f"mx{i}.test", f"192.0.2.{i}", 25, 10 * i) for i in range(1, 8))
DEAD = SessionReport()
TRANSACTED = SessionReport(transacted=True)
AGAIN = SessionReport(retry_plaintext=True)
AGAIN_AFTER_MAIL = SessionReport(transacted=True, retry_plaintext=True)


@pytest.mark.parametrize(
    ("address_limit", "session_limit", "reports", "tried"),
    [
        (5, 2, [DEAD] * 9, [1, 2, 3, 4, 5]),
        (5, 2, [TRANSACTED] * 9, [1, 2]),
        (5, 2, [DEAD, DEAD, DEAD, TRANSACTED, TRANSACTED], [1, 2, 3, 4, 5]),
        (0, 0, [TRANSACTED] * 9, [1, 2, 3, 4, 5, 6, 7]),
        (1, 1, [AGAIN, TRANSACTED, DEAD], [1, 1]),
        (1, 1, [AGAIN_AFTER_MAIL, TRANSACTED, DEAD], [1, 1]),
        (2, 0, [AGAIN, DEAD, AGAIN, DEAD, DEAD], [1, 1, 2, 2]),
        (0, 2, [TRANSACTED, AGAIN_AFTER_MAIL, TRANSACTED, DEAD], [1, 2, 2]),
        (0, 1, [DEAD, TRANSACTED, DEAD], [1, 2]),
    ],
)
def test_servers_are_tried_as_the_limits_allow(address_limit, session_limit, reports, tried):
    """C-30 C-31 C-44 C-50 to C-54 C-58."""
    plan = ConnectPlan(SERVERS, address_limit=address_limit, session_limit=session_limit)
    order = []
    for report in reports:
        endpoint = plan.next_endpoint()
        if endpoint is None:
            break
        order.append(SERVERS.index(endpoint) + 1)
        plan.record(report)
    assert tried == order
    if len(order) < len(reports):
        assert plan.next_endpoint() is None


def test_only_the_second_pass_is_in_plaintext():
    """C-37 C-43."""
    plan = ConnectPlan(SERVERS, address_limit=5, session_limit=2)
    seen = []
    for report in (AGAIN, DEAD, DEAD):
        plan.next_endpoint()
        seen.append(plan.plaintext)
        plan.record(report)
    assert [False, True, False] == seen


def test_a_kept_session_counts_against_both_limits_and_is_not_asked_again():
    """C-56 R-44."""
    plan = ConnectPlan(SERVERS, address_limit=5, session_limit=2)
    plan.reused(SERVERS[1])
    assert SERVERS[1] not in plan.waiting
    assert SERVERS[0] == plan.next_endpoint()
    plan.record(TRANSACTED)
    assert plan.next_endpoint() is None


@pytest.mark.parametrize(("address_limit", "session_limit"), [(5, 1), (1, 5)])
def test_a_kept_session_may_use_up_a_limit(address_limit, session_limit):
    """R-44."""
    plan = ConnectPlan(SERVERS, address_limit=address_limit, session_limit=session_limit)
    plan.reused(SERVERS[0])
    assert () == plan.waiting
    assert plan.next_endpoint() is None


def test_a_server_used_up_by_an_earlier_site_is_struck_from_the_list():
    """C-28."""
    plan = ConnectPlan(SERVERS[:2], address_limit=5, session_limit=2)
    plan.strike({SERVERS[0].address})
    assert SERVERS[1] == plan.next_endpoint()
    plan.record(DEAD)
    assert plan.next_endpoint() is None
