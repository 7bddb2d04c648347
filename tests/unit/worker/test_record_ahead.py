import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from mailq.delivery.ports import Ports
from mailq.envelope import DeliveryRequest, Notify, Recipient
from mailq.errors import LeaseLostError
from mailq.queue.messages import AtWork, Entry, Lease, RecipientResult
from mailq.settings import Settings
from mailq.status import Delivered, Endpoint, RecipientId, Reply
from mailq.worker.ahead import Ahead, Part
from mailq.worker.committer import Receipt
from mailq.worker.record import Recorder

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAKEN = Delivered(Endpoint("mx.test", "192.0.2.1", 25), Reply(250, ("250 2.0.0 Ok",)))
SECONDS = 10.0


class Clock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Writer:
    """Writes when it is told to."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.receipts: list[Receipt] = []
        self.at_once = False

    def submit(self, entry: Entry) -> Receipt:
        receipt = Receipt()
        self.entries.append(entry)
        self.receipts.append(receipt)
        if self.at_once:
            receipt.settle()
        return receipt

    def write(self, error: Exception | None = None) -> None:
        """Write everything."""
        for receipt in self.receipts:
            if not receipt.done:
                receipt.settle(error)


class Desk:
    """One lease on some messages, and its recorder."""

    def __init__(self, parts: Sequence[Part], *, ahead: int, named: int = 1) -> None:
        requests = tuple(
            DeliveryRequest(
                queue_id=part.at_work.queue_id,
                nexthop="far.test",
                sender="a@home.test",
                recipients=(Recipient(RecipientId(number), f"r{number}@far.test"),),
                size_bytes=1,
                arrived_at=NOW,
                active_at=NOW,
            )
            for number, part in enumerate(parts)
        )
        ids = [RecipientId(number) for number in range(len(parts))]
        self.lease = Lease(
            id=7,
            nexthop="far.test",
            owner="worker 1",
            taken_at=NOW,
            requests=requests,
            attempts=dict.fromkeys(ids, 1),
            expires={},
            full=False,
            due=dict.fromkeys(ids, NOW - timedelta(seconds=1)),
            named=named,
        )
        self.writer = Writer()
        self.told: list[RecipientId] = []
        ports = Ports(clock=Clock(), resolver=None, connector=None, bodies=None, rng=Random(1))  # type: ignore[arg-type]  # not asked
        self.recorder = Recorder(
            self.lease,
            store=None,  # type: ignore[arg-type]  # the writer has it
            ports=ports,
            settings=Settings(myhostname="client.test"),
            on_recorded=self._recorded,
            monotonic=lambda: 0.0,
            parts=parts,
            writer=self.writer,
            ahead=self._ahead(ahead),
        )

    def _recorded(self, results: Sequence[RecipientResult]) -> None:
        self.told += [one.recipient_id for one in results]

    @staticmethod
    def _ahead(number: int) -> Ahead:
        ahead = Ahead(number)
        ahead.now = number
        return ahead

    def send(self, number: int) -> None:
        """Begin a part and record that it was taken."""
        self.recorder.begin(number)
        self.record(number)

    def record(self, number: int) -> None:
        self.recorder.record(self.lease.requests[number], {RecipientId(number): TAKEN}, started_at=NOW)


def named(entries: Sequence[Entry]) -> list[tuple[str, ...] | None]:
    return [None if one.at_work is None else (one.at_work.queue_id, *one.at_work.also) for one in entries]


def parts(names: str) -> list[Part]:
    return [Part(AtWork(name.lower()), alone=name.isupper()) for name in names]


@pytest.fixture
def waiting() -> Iterator[list[threading.Thread]]:
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_several_are_sent_while_the_first_is_being_recorded() -> None:
    desk = Desk(parts("abcd"), ahead=3)
    desk.recorder.begin(0)
    desk.writer.write()
    desk.record(0)
    desk.send(1)
    desk.send(2)
    assert [("a", "b", "c"), ("b", "c", "d"), None, None] == named(desk.writer.entries)
    assert [] == desk.told


def test_what_the_claim_has_named_is_sent_without_naming_it_again() -> None:
    desk = Desk(parts("abcde"), ahead=3, named=3)
    desk.send(0)
    desk.send(1)
    desk.send(2)
    assert [("b", "c", "d"), ("c", "d", "e"), None] == named(desk.writer.entries)
    assert [] == desk.told


def test_what_the_claim_has_named_though_it_goes_alone_is_named_anew(waiting: list[threading.Thread]) -> None:
    """Source: smtp-delivery Q-45."""
    desk = Desk(parts("aBc"), ahead=3, named=3)
    begun = threading.Event()
    waiting.append(threading.Thread(target=lambda: (desk.recorder.begin(0), begun.set())))
    waiting[0].start()
    assert not begun.wait(0.05)
    desk.writer.write()
    assert begun.wait(SECONDS)
    assert [("a",)] == named(desk.writer.entries)


def test_more_is_named_when_a_quarter_of_what_was_named_is_sent() -> None:
    desk = Desk(parts("abcdefghijklmnopqrst"), ahead=8)
    desk.writer.at_once = True
    for number in range(6):
        desk.send(number)
    assert ["abcdefgh", None, "cdefghij", None, "efghijkl", None, "ghijklmn"] == [
        None if one is None else "".join(one) for one in named(desk.writer.entries)
    ]


def test_everything_is_named_before_it_is_begun_however_far_ahead() -> None:
    """Source: smtp-delivery Q-45."""
    for ahead in range(1, 9):
        desk = Desk(parts("abcdefghijklmnopqrst"), ahead=ahead)
        desk.writer.at_once = True
        latest: tuple[str, ...] = ("a",)
        for number, name in enumerate("abcdefghijklmnopqrst"):
            desk.recorder.begin(number)
            latest = next((one for one in reversed(named(desk.writer.entries)) if one is not None), latest)
            assert name in latest
            desk.record(number)


def test_nothing_is_sent_before_the_lease_names_it(waiting: list[threading.Thread]) -> None:
    """Source: smtp-delivery Q-45."""
    desk = Desk(parts("abcd"), ahead=1)
    desk.send(0)
    begun = threading.Event()

    def go_on() -> None:
        desk.recorder.begin(1)
        begun.set()

    waiting.append(threading.Thread(target=go_on))
    waiting[0].start()
    assert not begun.wait(0.05)
    desk.writer.write()
    assert begun.wait(SECONDS)
    assert [0] == desk.told


def test_what_is_to_be_alone_waits_until_all_before_it_is_recorded(waiting: list[threading.Thread]) -> None:
    desk = Desk(parts("abC"), ahead=3)
    desk.recorder.begin(0)
    desk.writer.write()
    desk.record(0)
    desk.send(1)
    assert [("a", "b"), ("b",), ("c",)] == named(desk.writer.entries)
    begun = threading.Event()
    waiting.append(threading.Thread(target=lambda: (desk.recorder.begin(2), begun.set())))
    waiting[0].start()
    assert not begun.wait(0.05)
    desk.writer.write()
    assert begun.wait(SECONDS)
    assert [0, 1] == desk.told


def test_a_lease_that_was_lost_meanwhile_is_told_of_before_the_next_message() -> None:
    desk = Desk(parts("abc"), ahead=3)
    desk.recorder.begin(0)
    desk.writer.write()
    desk.record(0)
    desk.writer.write(LeaseLostError("lost"))
    with pytest.raises(LeaseLostError):
        desk.recorder.begin(1)
    assert (True, []) == (desk.recorder.unrecorded, desk.told)


def test_the_end_of_a_batch_waits_for_its_records() -> None:
    desk = Desk(parts("ab"), ahead=3)
    desk.writer.at_once = True
    desk.send(0)
    desk.send(1)
    desk.recorder.flush()
    assert ([0, 1], None) == (desk.told, named(desk.writer.entries)[-1])


def test_part_of_a_messages_recipients_leaves_the_lease_as_it_is() -> None:
    desk = Desk(parts("ab"), ahead=1)
    desk.writer.at_once = True
    desk.recorder.begin(0)
    desk.recorder.record(desk.lease.requests[0], {RecipientId(0): TAKEN}, started_at=NOW, complete=False)
    assert [None] == named(desk.writer.entries)


def test_a_recipient_whose_sender_is_to_be_told_is_read_again() -> None:
    """Source: smtp-delivery B-27."""
    desk = Desk(parts("ab"), ahead=1)
    desk.writer.at_once = True
    request = desk.lease.requests[0]
    asked = Recipient(RecipientId(0), "r0@far.test", notify=frozenset({Notify.SUCCESS}))
    for recipient, is_known in ((request.recipients[0], True), (asked, False)):
        one = DeliveryRequest(
            queue_id="a",
            nexthop="far.test",
            sender="a@home.test",
            recipients=(recipient,),
            size_bytes=1,
            arrived_at=NOW,
            active_at=NOW,
        )
        desk.recorder.record(one, {RecipientId(0): TAKEN}, started_at=NOW, complete=False)
        assert is_known is (desk.writer.entries[-1].results[0].known is not None)


def test_the_lease_ends_with_the_last_outcome_where_all_was_sent() -> None:
    desk = Desk(parts("ab"), ahead=1)
    desk.writer.at_once = True
    desk.send(0)
    assert not desk.recorder.ended
    desk.send(1)
    desk.recorder.flush()
    assert [False, True] == [one.ends for one in desk.writer.entries]
    assert desk.recorder.ended


def test_the_lease_does_not_end_with_an_outcome_that_could_not_be_written() -> None:
    desk = Desk(parts("ab"), ahead=2)
    desk.recorder.begin(0)
    desk.writer.write()
    desk.record(0)
    desk.send(1)
    desk.writer.write(LeaseLostError("lost"))
    with pytest.raises(LeaseLostError):
        desk.recorder.flush()
    assert (True, False) == (desk.recorder.unrecorded, desk.recorder.ended)


@pytest.mark.parametrize("given", [2, 0])
def test_what_was_given_back_is_not_named_and_the_lease_ends_without_it_where_that_is_sure(given: int) -> None:
    desk = Desk(parts("abcd"), ahead=1)
    desk.writer.at_once = True
    desk.send(0)
    assert 2 == desk.recorder.named
    desk.recorder.keep(2)
    desk.recorder.note_given(given)
    desk.send(1)
    desk.recorder.flush()
    assert [("b",), None] == named(desk.writer.entries)
    assert bool(given) is desk.recorder.ended


def test_a_lease_of_which_something_was_passed_over_is_handed_back() -> None:
    desk = Desk(parts("ab"), ahead=1)
    desk.writer.at_once = True
    desk.send(1)
    desk.recorder.flush()
    assert not any(one.ends for one in desk.writer.entries)


def test_a_single_message_is_not_named_again() -> None:
    desk = Desk(parts("a"), ahead=4)
    desk.writer.at_once = True
    desk.send(0)
    assert [None] == named(desk.writer.entries)
