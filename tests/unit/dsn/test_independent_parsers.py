"""Reports as programs of others read them: what they find is what was recorded."""

from datetime import UTC, datetime
from email import message_from_bytes, policy

from flufl.bounce import all_failures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailq.dsn.compose import compose_delay_report, compose_failure_report, compose_success_report
from mailq.dsn.values import Letterhead, Original, Report, ReportedRecipient
from mailq.envelope import Ret

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WORDS = st.text(st.characters(codec="utf-8"), max_size=60)
# One of the parsers takes what follows a "=" for a parameter.
ADDRESSES = st.from_regex(r"[a-z][a-z0-9+_-]{0,20}[a-z0-9]@[a-z]{1,10}(\.[a-z]{2,5}){1,3}", fullmatch=True)
WIDE = st.from_regex(r"[a-zäöü漢字]{1,20}ß@[a-z]{1,10}\.test", fullmatch=True)
STATUSES = st.from_regex(r"[45]\.[0-7]\.[0-9]{1,2}", fullmatch=True)


@st.composite
def recipients(draw: st.DrawFn) -> list[ReportedRecipient]:
    """Draw up to four recipients with different addresses and whatever a server may have said."""
    names = draw(st.lists(ADDRESSES | WIDE, min_size=1, max_size=4, unique=True))
    return [
        ReportedRecipient(
            address=name,
            orcpt=draw(st.sampled_from(["", f"rfc822;{name}"])) if name.isascii() else "",
            status=draw(STATUSES),
            reason=draw(WORDS),
            remote_host=draw(st.sampled_from(["", "mx.far.test"])),
            remote_reply=draw(st.sampled_from(["", "550 no", "550-5.1.1 no\n550 5.1.1 such user"]) | WORDS),
            action=draw(st.sampled_from(["relayed", "delivered"])),
            last_attempt_at=draw(st.sampled_from([None, START])),
        )
        for name in names
    ]


@st.composite
def situations(draw: st.DrawFn) -> tuple[Original, Letterhead]:
    """Draw a message, as malformed as it may be, and our side of it."""
    content = draw(
        st.binary(max_size=200)
        | st.sampled_from(
            [
                b"From: ann@home.test\r\nMessage-ID: <1@home.test>\r\n\r\nGood morning.\r\n",
                b"From: ann@home.test\r\nMessage-ID: <broken\r\nno header here\r\n\r\n--x\r\n\r\n",
                "Subject: schön\r\n\r\nGrüße\r\n".encode(),
            ]
        )
    )
    original = Original(
        queue_id="Q1",
        sender=draw(st.sampled_from(["ann@home.test", "änn@home.test"])),
        envid=draw(st.sampled_from(["", "envelope+7"])),
        ret=draw(st.sampled_from([None, Ret.FULL, Ret.HDRS])),
        arrived_at=START,
        content=draw(st.none() | st.just(content)),
        smtputf8=draw(st.booleans()),
    )
    letterhead = Letterhead(
        hostname="mail.home.test",
        message_id="Q1.77@mail.home.test",
        written_at=START,
        size_limit_bytes=draw(st.sampled_from([0, 100])),
    )
    return original, letterhead


def plain(report: Report) -> bool:
    return b"Content-Type: message/delivery-status\r\n" in report.content


def blocks(report: Report) -> list[dict[str, str]]:
    """Return the groups of fields as Python's parser reads them, without a defect."""
    message = message_from_bytes(report.content, policy=policy.compat32)
    assert [] == message.defects
    status = message.get_payload(1)
    groups = status.get_payload()
    return [dict(group.items()) for group in groups]


def written(address: str) -> str:
    """Return an address as the plain form shows it. Source: RFC 6533 §3."""
    if address.isascii():
        return f"rfc822; {address}"
    escaped = (c if c not in "\\+=" and "!" <= c <= "~" else f"\\x{{{ord(c):02X}}}" for c in address)
    return f"utf-8; {''.join(escaped)}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(situations(), recipients())
def test_every_failure_is_read_as_it_was_recorded(
    situation: tuple[Original, Letterhead], failed: list[ReportedRecipient]
) -> None:
    """Source: smtp-delivery B-25 to B-28."""
    original, letterhead = situation
    report = compose_failure_report(original, failed, letterhead)
    if not plain(report):
        return
    expected = {one.address.encode() for one in failed if one.address.isascii()}
    assert (frozenset(), expected) == all_failures(message_from_bytes(report.content))
    about, *groups = blocks(report)
    assert (original.envid or None) == about.get("Original-Envelope-Id")
    assert [(written(one.address), "failed", one.status) for one in failed] == [
        (group["Final-Recipient"], group["Action"], group["Status"]) for group in groups
    ]
    assert [bool(one.remote_reply) for one in failed] == ["Remote-MTA" in group for group in groups]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(situations(), recipients())
def test_every_delay_is_read_as_no_failure(
    situation: tuple[Original, Letterhead], late: list[ReportedRecipient]
) -> None:
    """Source: smtp-delivery B-02, B-27."""
    report = compose_delay_report(situation[0], late, situation[1])
    if plain(report):
        expected = {one.address.encode() for one in late if one.address.isascii()}
        assert (expected, frozenset()) == all_failures(message_from_bytes(report.content))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(situations(), recipients())
def test_no_success_is_read_as_a_failure(
    situation: tuple[Original, Letterhead], taken: list[ReportedRecipient]
) -> None:
    """Source: smtp-delivery B-03, B-27."""
    report = compose_success_report(situation[0], taken, situation[1])
    if plain(report):
        assert [one.action for one in taken] == [group["Action"] for group in blocks(report)[1:]]
