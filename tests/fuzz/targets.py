"""What a fuzzer drives: bytes in, and nothing but the promised errors out."""

from mailq.errors import ReplyTooLongError
from mailq.smtp.dialogue import Send, Transaction
from mailq.smtp.downgrade import convert, survey
from mailq.smtp.extensions import Extensions
from mailq.smtp.replies import LINE_LIMIT_BYTES, REPLY_LIMIT_LINES, TEXT_LIMIT_CHARACTERS, ReplyReader
from mailq.status import RecipientId, Reply

STEP_LIMIT = 50


def replies_of(data: bytes) -> list[Reply]:
    """Read *data* as replies, in pieces of sizes that the first byte chooses; an endless reply ends them."""
    reader = ReplyReader()
    size = 1 + (data[0] if data else 0)
    replies = []
    try:
        for start in range(1, len(data), size):
            reader.feed(data[start : start + size])
            while (reply := reader.next_reply()) is not None:
                replies.append(reply)
            assert len(reader._buffer) <= LINE_LIMIT_BYTES + size
    except ReplyTooLongError:
        pass
    return replies


def check_replies(data: bytes) -> None:
    """Every reply is bounded, printable, and has a status and extensions."""
    for reply in replies_of(data):
        assert 0 <= reply.code <= 999
        assert len(reply.text) <= TEXT_LIMIT_CHARACTERS + 2 * LINE_LIMIT_BYTES + REPLY_LIMIT_LINES
        assert reply.text.isprintable()
        assert str(reply.status)
        Extensions.parse(reply)


def check_transaction(data: bytes) -> None:
    """A transaction ends, and each recipient is refused, delivered or undecided, whatever the replies are."""
    flags = data[0] if data else 0
    replies = iter(replies_of(data))
    count = 1 + flags % 3
    transaction = Transaction(
        mail=b"MAIL FROM:<>\r\n",
        recipients=[(RecipientId(n), b"RCPT TO:<x>\r\n") for n in range(count)],
        pipelining=bool(flags & 8),
        lmtp=bool(flags & 16),
    )
    steps = 0
    while (step := transaction.next_step()) is not None:
        steps += 1
        assert steps < STEP_LIMIT
        if isinstance(step, Send):
            expected = len(step.expects)
        else:
            assert transaction._accepted
            transaction.content_written()
            expected = step.expects
        for _ in range(expected):
            reply = next(replies, None)
            if reply is None:
                break
            transaction.receive(reply)
        else:
            continue
        break
    fates = [*transaction.refused, *transaction.delivered, *transaction.undecided]
    assert sorted(fates) == [RecipientId(n) for n in range(count)]
    assert transaction.content_sent or not transaction.delivered


def check_conversion(data: bytes) -> None:
    """Content is converted to ASCII bodies, or there is a problem; either way without an error."""
    plan = survey([data])
    if not plan.problem:
        wire = b"".join(convert([data], plan))
        assert not survey([wire]).needed


CHECKS = (check_replies, check_transaction, check_conversion)
