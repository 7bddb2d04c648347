"""A transaction goes in the order that the server's replies allow. Source: smtp-delivery X-10 to X-66."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pytest

from mailq.smtp.dialogue import GROUP_LIMIT_BYTES, Refusal, Send, SendContent, Transaction
from mailq.status import RecipientId, Reply, Stage

A, B, C = (RecipientId(number) for number in (1, 2, 3))
OK = Reply(250, ("250 ok",))
GO_ON = Reply(354, ("354 go on",))
LATER = Reply(450, ("450 later",))
NEVER = Reply(550, ("550 never",))

Replies = Mapping[str, Reply | list[Reply]]
GOOD: Replies = {"MAIL": OK, "RCPT": OK, "DATA": GO_ON, ".": OK, "RSET": OK}


def transaction(*recipients: RecipientId, pipelining: bool = True, lmtp: bool = False) -> Transaction:
    """Return a transaction with short commands."""
    return Transaction(
        mail=b"MAIL FROM:<s>\r\n",
        recipients=[(each, b"RCPT TO:<%d>\r\n" % each) for each in recipients or (A,)],
        pipelining=pipelining,
        lmtp=lmtp,
    )


def verbs(data: bytes) -> list[str]:
    """Return the first word of each command."""
    return [line.split(b" ")[0].decode() for line in data.split(b"\r\n")[:-1]]


def play(dialogue: Transaction, replies: Replies) -> list[list[str]]:
    """Carry the transaction out against *replies* and return the writes, each as a list of verbs."""
    left: dict[str, Iterator[Reply]] = {
        verb: iter(reply if isinstance(reply, list) else [reply] * 100) for verb, reply in replies.items()
    }
    writes = []
    while (step := dialogue.next_step()) is not None:
        match step:
            case Send(data, expects):
                writes.append(verbs(data))
                assert len(expects) == len(writes[-1])
                for verb, stage in zip(writes[-1], expects, strict=True):
                    assert stage is dialogue.stage
                    dialogue.receive(next(left[verb]))
            case SendContent(expects):
                writes.append(["content"])
                assert Stage.BODY is dialogue.stage
                dialogue.content_written()
                for _ in range(expects):
                    assert Stage.END_OF_DATA is dialogue.stage
                    dialogue.receive(next(left["."]))
    return writes


def test_with_pipelining_everything_before_the_content_goes_out_in_one_write() -> None:
    dialogue = transaction(A, B)
    assert [["MAIL", "RCPT", "RCPT", "DATA"], ["content"]] == play(dialogue, GOOD)
    assert {A: OK, B: OK} == dialogue.delivered
    assert () == dialogue.undecided
    assert dialogue.clean
    assert dialogue.content_sent


def test_without_pipelining_each_command_waits_for_the_reply_before_it() -> None:
    dialogue = transaction(A, B, pipelining=False)
    assert [["MAIL"], ["RCPT"], ["RCPT"], ["DATA"], ["content"]] == play(dialogue, GOOD)
    assert {A: OK, B: OK} == dialogue.delivered


def test_a_group_of_commands_is_at_most_4096_bytes() -> None:
    many = [(RecipientId(number), b"RCPT TO:<%s>\r\n" % (b"x" * 63)) for number in range(80)]
    dialogue = Transaction(mail=b"MAIL FROM:<s>\r\n", recipients=many, pipelining=True)
    sizes = []
    seen = []
    while isinstance(step := dialogue.next_step(), Send):
        sizes.append(len(step.data))
        seen.append(verbs(step.data))
        for stage in step.expects:
            dialogue.receive(GO_ON if stage is Stage.DATA else OK)
    assert all(size <= GROUP_LIMIT_BYTES for size in sizes)
    assert [["MAIL"] + ["RCPT"] * 54, ["RCPT"] * 26 + ["DATA"]] == seen


def test_a_group_of_exactly_4096_bytes_is_not_split() -> None:
    rcpt = b"RCPT TO:<%s>\r\n"
    mail = b"MAIL FROM:<s>\r\n"
    room = GROUP_LIMIT_BYTES - len(mail) - len(rcpt % b"") - len(b"DATA\r\n")
    for length, groups in ((room, 1), (room + 1, 2)):
        dialogue = Transaction(mail=mail, recipients=[(A, rcpt % (b"x" * length))], pipelining=True)
        assert groups == len(play(dialogue, GOOD)) - 1


@pytest.mark.parametrize("reply", [LATER, NEVER, GO_ON])
def test_a_refused_sender_is_a_refusal_of_the_message_and_replies_behind_it_do_not_count(reply: Reply) -> None:
    dialogue = transaction(A, B)
    assert [["MAIL", "RCPT", "RCPT", "DATA"], ["RSET"]] == play(
        dialogue, GOOD | {"MAIL": reply, "RCPT": NEVER, "DATA": NEVER}
    )
    assert Refusal(Stage.MAIL, reply) == dialogue.rejected
    assert {} == dialogue.refused
    assert (A, B) == dialogue.undecided
    assert dialogue.clean


def test_a_server_that_wants_content_behind_a_refused_sender_gets_a_lone_dot() -> None:
    dialogue = transaction(A, B)
    assert [["MAIL", "RCPT", "RCPT", "DATA"], ["."]] == play(dialogue, GOOD | {"MAIL": NEVER})
    assert Refusal(Stage.MAIL, NEVER) == dialogue.rejected
    assert {} == dialogue.delivered
    assert not dialogue.content_sent


def test_without_pipelining_a_refused_sender_ends_in_reset() -> None:
    dialogue = transaction(A, B, pipelining=False)
    assert [["MAIL"], ["RSET"]] == play(dialogue, GOOD | {"MAIL": NEVER})
    assert (A, B) == dialogue.undecided


def test_refused_recipients_have_their_own_reply_and_the_others_are_delivered() -> None:
    dialogue = transaction(A, B, C)
    assert [["MAIL", "RCPT", "RCPT", "RCPT", "DATA"], ["content"]] == play(
        dialogue, GOOD | {"RCPT": [OK, LATER, NEVER]}
    )
    assert {A: OK} == dialogue.delivered
    assert {B: Refusal(Stage.RCPT, LATER), C: Refusal(Stage.RCPT, NEVER)} == dialogue.refused
    assert dialogue.rejected is None


def test_when_nobody_is_accepted_a_server_that_wants_content_gets_a_lone_dot() -> None:
    dialogue = transaction(A, B)
    assert [["MAIL", "RCPT", "RCPT", "DATA"], ["."]] == play(dialogue, GOOD | {"RCPT": NEVER, ".": NEVER})
    assert {A: Refusal(Stage.RCPT, NEVER), B: Refusal(Stage.RCPT, NEVER)} == dialogue.refused
    assert dialogue.rejected is None
    assert dialogue.clean


def test_when_nobody_is_accepted_a_refused_data_adds_nothing() -> None:
    dialogue = transaction(A)
    assert [["MAIL", "RCPT", "DATA"], ["RSET"]] == play(dialogue, GOOD | {"RCPT": LATER, "DATA": NEVER})
    assert dialogue.rejected is None
    assert {A: Refusal(Stage.RCPT, LATER)} == dialogue.refused


def test_without_pipelining_no_data_is_sent_for_nobody() -> None:
    dialogue = transaction(A, B, pipelining=False)
    assert [["MAIL"], ["RCPT"], ["RCPT"], ["RSET"]] == play(dialogue, GOOD | {"RCPT": NEVER})
    assert dialogue.clean


def test_between_groups_the_course_is_changed_as_without_pipelining() -> None:
    long = [(RecipientId(number), b"RCPT TO:<%s>\r\n" % (b"x" * 3000)) for number in range(3)]
    refused_sender = Transaction(mail=b"MAIL FROM:<s>\r\n", recipients=long, pipelining=True)
    assert [["MAIL", "RCPT"], ["RSET"]] == play(refused_sender, GOOD | {"MAIL": NEVER})
    last_alone = [*long[:1], (RecipientId(9), b"RCPT TO:<%s>\r\n" % (b"x" * 4080))]
    nobody = Transaction(mail=b"MAIL FROM:<s>\r\n", recipients=last_alone, pipelining=True)
    assert [["MAIL", "RCPT"], ["RCPT"], ["RSET"]] == play(nobody, GOOD | {"RCPT": NEVER})


@pytest.mark.parametrize("reply", [LATER, NEVER, OK])
def test_refused_data_is_a_refusal_of_the_message_and_ends_in_reset(reply: Reply) -> None:
    dialogue = transaction(A, B)
    assert [["MAIL", "RCPT", "RCPT", "DATA"], ["RSET"]] == play(dialogue, GOOD | {"RCPT": [OK, NEVER], "DATA": reply})
    assert Refusal(Stage.DATA, reply) == dialogue.rejected
    assert (A,) == dialogue.undecided


@pytest.mark.parametrize("reply", [LATER, NEVER, GO_ON])
def test_refused_content_is_a_refusal_of_the_message(reply: Reply) -> None:
    dialogue = transaction(A, B)
    play(dialogue, GOOD | {"RCPT": [OK, NEVER], ".": reply})
    assert Refusal(Stage.END_OF_DATA, reply) == dialogue.rejected
    assert (A,) == dialogue.undecided
    assert {} == dialogue.delivered
    assert dialogue.clean


def test_an_lmtp_server_answers_for_each_accepted_recipient_in_order() -> None:
    dialogue = transaction(A, B, C, lmtp=True)
    play(dialogue, GOOD | {"RCPT": [OK, NEVER, OK], ".": [LATER, OK]})
    assert {A: Refusal(Stage.END_OF_DATA, LATER), B: Refusal(Stage.RCPT, NEVER)} == dialogue.refused
    assert {C: OK} == dialogue.delivered
    assert dialogue.rejected is None


def test_an_lmtp_session_lost_between_replies_keeps_what_was_said() -> None:
    dialogue = transaction(A, B, C, lmtp=True)
    step = dialogue.next_step()
    assert isinstance(step, Send)
    for reply in (OK, OK, OK, OK, GO_ON):
        dialogue.receive(reply)
    assert SendContent(3) == dialogue.next_step()
    dialogue.content_written()
    dialogue.receive(OK)
    assert {A: OK} == dialogue.delivered
    assert (B, C) == dialogue.undecided
    assert Stage.END_OF_DATA is dialogue.stage
    assert not dialogue.clean


def test_the_stage_is_that_of_the_reply_waited_for() -> None:
    dialogue = transaction(A, B)
    dialogue.next_step()
    assert Stage.MAIL is dialogue.stage
    dialogue.receive(OK)
    assert Stage.RCPT is dialogue.stage
    dialogue.receive(NEVER)
    assert Stage.RCPT is dialogue.stage
    assert {A: Refusal(Stage.RCPT, NEVER)} == dialogue.refused
    assert (B,) == dialogue.undecided


def until_content(dialogue: Transaction, recipients: int) -> None:
    """Go on until the content is being written."""
    dialogue.next_step()
    for reply in [OK] * (recipients + 1) + [GO_ON]:
        dialogue.receive(reply)
    assert isinstance(dialogue.next_step(), SendContent)


def test_a_reply_read_after_the_content_broke_off_counts_as_the_reply_to_it() -> None:
    refused = transaction(A)
    until_content(refused, 1)
    refused.content_failed()
    assert Stage.BODY is refused.stage
    refused.receive(NEVER)
    assert Refusal(Stage.END_OF_DATA, NEVER) == refused.rejected
    assert refused.next_step() is None
    assert not refused.clean
    assert not refused.content_sent


def test_a_premature_acceptance_counts_too_as_it_does_in_postfix() -> None:
    taken = transaction(A)
    until_content(taken, 1)
    taken.content_failed()
    taken.receive(OK)
    assert {A: OK} == taken.delivered
    assert not taken.clean


def test_after_the_content_broke_off_an_lmtp_server_has_one_reply_only() -> None:
    dialogue = transaction(A, B, lmtp=True)
    until_content(dialogue, 2)
    dialogue.content_failed()
    dialogue.receive(NEVER)
    assert dialogue.finished
    assert (B,) == dialogue.undecided


def test_calls_out_of_order_are_refused() -> None:
    dialogue = transaction(A)
    with pytest.raises(RuntimeError):
        dialogue.receive(OK)
    with pytest.raises(RuntimeError):
        dialogue.content_written()
    dialogue.next_step()
    with pytest.raises(RuntimeError):
        dialogue.next_step()
    for reply in (OK, OK, GO_ON):
        dialogue.receive(reply)
    dialogue.next_step()
    with pytest.raises(RuntimeError):
        dialogue.receive(OK)
    with pytest.raises(RuntimeError):
        dialogue.next_step()
    with pytest.raises(ValueError, match="recipient"):
        Transaction(mail=b"", recipients=[], pipelining=True)


def check_conservation(dialogue: Transaction, recipients: Sequence[RecipientId], *, lmtp: bool) -> None:
    """Every recipient has exactly one fate, and the rejection explains whoever is left."""
    decided = [*dialogue.refused, *dialogue.delivered]
    assert sorted([*decided, *dialogue.undecided]) == list(recipients)
    assert bool(dialogue.undecided) == (dialogue.rejected is not None)
    if dialogue.delivered:
        assert dialogue.content_sent
        assert lmtp or dialogue.rejected is None


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("pipelining", [False, True])
def test_whatever_a_server_replies_the_transaction_ends_in_step_with_one_fate_for_each(
    *, pipelining: bool, lmtp: bool
) -> None:
    recipients = (A, B, C)
    any_reply = (OK, GO_ON, LATER, NEVER)
    for mail, data, *others in product(any_reply, any_reply, *[(OK, LATER, NEVER)] * 6):
        dialogue = transaction(*recipients, pipelining=pipelining, lmtp=lmtp)
        writes = play(dialogue, {"MAIL": mail, "DATA": data, "RCPT": others[:3], ".": others[3:], "RSET": NEVER})
        assert 7 >= len(writes)
        assert dialogue.clean
        check_conservation(dialogue, recipients, lmtp=lmtp)


def test_with_chunking_and_no_pipelining_the_content_needs_no_go_ahead() -> None:
    """S-39, RFC 3030."""
    dialogue = Transaction(
        mail=b"MAIL FROM:<s>\r\n", recipients=[(A, b"RCPT TO:<1>\r\n")], pipelining=False, chunking=True
    )
    assert [["MAIL"], ["RCPT"], ["content"]] == play(dialogue, GOOD)
    assert {A: OK} == dialogue.delivered
    assert dialogue.clean


def test_with_pipelining_chunking_changes_nothing() -> None:
    """S-39."""
    dialogue = Transaction(
        mail=b"MAIL FROM:<s>\r\n", recipients=[(A, b"RCPT TO:<1>\r\n")], pipelining=True, chunking=True
    )
    assert [["MAIL", "RCPT", "DATA"], ["content"]] == play(dialogue, GOOD)


def probing(*, pipelining: bool) -> Transaction:
    return Transaction(mail=b"MAIL\r\n", recipients=[(A, b"RCPT\r\n")], pipelining=pipelining, probe=True)


def test_a_kept_session_is_tried_in_one_write_with_the_next_message() -> None:
    """Source: smtp-delivery R-46."""
    step = probing(pipelining=True).next_step()
    assert Send(b"RSET\r\nMAIL\r\nRCPT\r\nDATA\r\n", (Stage.RSET_PROBE, Stage.MAIL, Stage.RCPT, Stage.DATA)) == step


def test_without_pipelining_a_kept_session_is_tried_before_the_next_message() -> None:
    """Source: smtp-delivery R-46."""
    dialogue = probing(pipelining=False)
    assert Send(b"RSET\r\n", (Stage.RSET_PROBE,)) == dialogue.next_step()
    dialogue.receive(OK)
    assert Send(b"MAIL\r\n", (Stage.MAIL,)) == dialogue.next_step()
    assert not dialogue.stale


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_kept_session_whose_reset_is_refused_is_stale(pipelining: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Source: smtp-delivery R-46."""
    dialogue = probing(pipelining=pipelining)
    dialogue.next_step()
    dialogue.receive(Reply(421, ("421 4.4.2 idle too long",)))
    assert (True, (A,), None) == (dialogue.stale, dialogue.undecided, dialogue.rejected)


def following() -> Transaction:
    """Return a transaction whose commands go out behind the end of another."""
    rcpt = [(A, b"RCPT TO:<1>\r\n")]
    return Transaction(mail=b"MAIL FROM:<s>\r\n", recipients=rcpt, pipelining=True, follows=True)


@pytest.mark.parametrize(
    ("replies", "proven"),
    [
        (GOOD, True),
        (GOOD | {"RCPT": NEVER}, True),
        (GOOD | {"RCPT": NEVER, "DATA": NEVER}, True),
        (GOOD | {"DATA": LATER}, True),
        (GOOD | {"MAIL": LATER, "RCPT": NEVER, "DATA": NEVER}, True),
        # Each answer is that to the command before.
        (GOOD | {"DATA": OK, "RSET": GO_ON}, False),
        (GOOD | {"DATA": NEVER, "RSET": NEVER}, False),
    ],
)
def test_what_follows_another_transaction_counts_when_the_server_is_seen_to_be_in_step(
    replies: Replies, *, proven: bool
) -> None:
    """RFC 2920 section 3.1."""
    dialogue = following()
    assert not dialogue.proven
    play(dialogue, replies)
    assert proven is dialogue.proven
    assert proven is not dialogue.stale


@pytest.mark.parametrize("code", [354, 500, 503, 555])
def test_a_server_that_does_not_want_the_next_sender_there_is_asked_again_elsewhere(code: int) -> None:
    dialogue = following()
    dialogue.next_step()
    dialogue.receive(Reply(code, (f"{code} what?",)))
    assert dialogue.stale
