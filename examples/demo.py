"""Watch mail being delivered, retried and returned, on this machine alone: what ``make run`` shows.

A name server and six mail servers are started on loopback, each with a
provider's habits, and a worker in this process on a temporary SQLite queue.
The messages beside this file are queued; every event is printed as it
happens. In the end each recipient's fate is compared with what was to be
expected of its provider: the exit code is 0 only where all of them agree.
"""

import email
import email.policy
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mailq
from mailq.queue.selectors import Selector
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.queue.views import RecipientView
from mailq.testing.dnsd import DnsServer
from mailq.testing.smtpd import Delivery, Script, ScriptedSmtpServer, accepting, greylisting, rejecting
from mailq.worker.embedded import embedded

MESSAGES = sorted(Path(__file__).resolve().parent.glob("*.eml"))
PATIENCE_SECONDS = 60.0
BACKOFF = timedelta(seconds=2)
FINAL = {ShownState.SENT, ShownState.BOUNCED, ShownState.EXPIRED, ShownState.CANCELLED}
REPORTED = ("nobody@reject.test", "former@reject.test")
REPORT_TO = "orders@home.test"


@dataclass(frozen=True, slots=True)
class Host:
    """One mail server: its name and address, what it does, and how; no script: nothing listens there."""

    name: str
    address: str
    habit: str
    preference: int = 10
    script: Script | None = None

    @property
    def domain(self) -> str:
        """The domain it is a mail exchanger of."""
        return self.name.partition(".")[2]


HOSTS = (
    Host("mx.healthy.test", "127.0.0.11", "takes everything", script=accepting()),
    Host("mx.greylist.test", "127.0.0.12", "says 451 to whom it does not know yet", script=greylisting(attempts=1)),
    Host("mx1.deadfirst.test", "127.0.0.13", "MX 10, but nothing listens there"),
    Host("mx2.deadfirst.test", "127.0.0.14", "MX 20, takes everything", preference=20, script=accepting()),
    Host("mx.reject.test", "127.0.0.15", "says 550 for mailboxes that are gone", script=rejecting(*REPORTED)),
    Host("mx.home.test", "127.0.0.16", "the senders' own; failure reports go here", script=accepting()),
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to become of a recipient: its state, the server that had the last word, how many attempts."""

    state: ShownState
    server: str
    attempts: int


EXPECTED = {
    "customer@healthy.test": Expected(ShownState.SENT, "mx.healthy.test", 1),
    "accounts@healthy.test": Expected(ShownState.SENT, "mx.healthy.test", 1),
    "noc@healthy.test": Expected(ShownState.SENT, "mx.healthy.test", 1),
    "oncall@healthy.test": Expected(ShownState.SENT, "mx.healthy.test", 1),
    "reader@greylist.test": Expected(ShownState.SENT, "mx.greylist.test", 2),
    "noc@greylist.test": Expected(ShownState.SENT, "mx.greylist.test", 2),
    "subscriber@greylist.test": Expected(ShownState.SENT, "mx.greylist.test", 2),
    "noc@deadfirst.test": Expected(ShownState.SENT, "mx2.deadfirst.test", 1),
    "user@deadfirst.test": Expected(ShownState.SENT, "mx2.deadfirst.test", 1),
    "info@reject.test": Expected(ShownState.SENT, "mx.reject.test", 1),
    "nobody@reject.test": Expected(ShownState.BOUNCED, "mx.reject.test", 1),
    "former@reject.test": Expected(ShownState.BOUNCED, "mx.reject.test", 1),
    REPORT_TO: Expected(ShownState.SENT, "mx.home.test", 1),
}


class Story(logging.Handler):
    """Prints one line an event, with the seconds since the start; also takes the worker's outcome events."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._started = time.monotonic()
        self._colours = {"sent": "32", "deferred": "33", "bounced": "31"} if sys.stdout.isatty() else {}

    def tell(self, event: str, who: str, what: str) -> None:
        """Print one line."""
        colour = self._colours.get(event, "0")
        shown = f"\033[{colour}m{event:<8}\033[0m" if self._colours else f"{event:<8}"
        print(f"{time.monotonic() - self._started:6.2f} s  {shown}  {who:<25}  {what}", flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Print the outcome of one recipient. The event's fields are those of mailq.worker.outcome_log."""
        fields = record.__dict__
        for reason in fields["earlier"]:
            self.tell("passed", fields["recipient"], f"{reason}; asking the next server")
        words = f"{fields['relay']}: {fields['reason']}" if fields["event"] == "sent" else fields["reason"]
        if fields["due_at"]:
            wait = datetime.fromisoformat(fields["due_at"]) - datetime.now(UTC)
            words += f"; next attempt in {wait.total_seconds():.0f} s"
        self.tell(fields["event"], fields["recipient"], words)


@contextmanager
def providers() -> Iterator[tuple[Mapping[str, ScriptedSmtpServer], int]]:
    """Run every host's server, all on the same free port, as the Internet's are all on 25; yields them by name."""
    for attempts_left in reversed(range(20)):
        with ExitStack() as running:
            try:
                servers = start_servers(running)
            except OSError:
                # The port that was free on the first address may be taken on another.
                if not attempts_left:
                    raise
                continue
            yield servers, next(iter(servers.values())).port
            return


def start_servers(running: ExitStack) -> Mapping[str, ScriptedSmtpServer]:
    """Start a server for each host that has one; the first chooses the port."""
    servers: dict[str, ScriptedSmtpServer] = {}
    port = 0
    for host in HOSTS:
        if host.script is not None:
            server = running.enter_context(ScriptedSmtpServer(host.script, address=host.address, port=port))
            servers[host.name] = server
            port = server.port
    return servers


def zone() -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Return what DNS says of the hosts and their domains."""
    domains: dict[str, dict[str, list[str]]] = {}
    for host in HOSTS:
        domains.setdefault(host.domain, {"MX": []})["MX"].append(f"{host.preference} {host.name}")
    return domains | {host.name: {"A": [host.address]} for host in HOSTS}


def settings_for(folder: Path, dns: DnsServer, port: int) -> mailq.Settings:
    """Return settings that stay on this machine and retry after seconds where hours would be usual."""
    return mailq.Settings(
        database_url=f"sqlite:///{folder / 'queue.sqlite3'}",
        network="loopback",
        nameservers=(dns.nameserver,),
        inet_protocols=("ipv4",),
        tcp_port=str(port),
        myhostname="client.home.test",
        worker_concurrency=10,
        dispatch_interval=timedelta(seconds=0.2),
        minimal_backoff_time=BACKOFF,
        maximal_backoff_time=BACKOFF,
        backoff_jitter=0.0,
    )


def introduce(port: int) -> None:
    """Print who takes part."""
    print(f"Mail servers, all on port {port} of this machine:\n")
    for host in HOSTS:
        print(f"  {host.name:<20} {host.address:<12} {host.habit}")
    print()


def queue_messages(queue: mailq.Queue, story: Story) -> None:
    """Queue every message of this folder; envelopes are taken from the headers."""
    for path in MESSAGES:
        content = path.read_bytes()
        queue_id = queue.send(content)
        subject = email.message_from_bytes(content, policy=email.policy.default)["Subject"]
        story.tell("queued", path.name, f"{queue_id}: {subject}")


def recipients_of(store: Store) -> list[RecipientView]:
    """Return every recipient in the queue, failure reports' included."""
    return store.list_recipients(Selector(), limit=1000)


def wait_until_finished(store: Store) -> list[RecipientView]:
    """Return all recipients as soon as those expected are there and nothing waits any more, or patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        recipients = recipients_of(store)
        finished = {each.address for each in recipients if each.state in FINAL}
        if finished >= set(EXPECTED) or time.monotonic() > deadline:
            return recipients
        time.sleep(0.05)


def print_summary(recipients: Sequence[RecipientView], report: str) -> None:
    """Print the failure report and a table of all recipients."""
    print(f"\nThe failure report that {REPORT_TO} got:\n")
    print("\n".join(f"  | {line}" for line in report.splitlines()))
    print(f"\n{'Recipient':<26}{'State':<9}{'Tries':<6}{'Status':<8}Server")
    for each in sorted(recipients, key=lambda one: one.address.partition("@")[::-1]):
        print(f"{each.address:<26}{each.state:<9}{each.attempts:<6}{each.last_status:<8}{each.last_relay}")


def delivery_status(delivery: Delivery | None) -> str:
    """Return the machine-readable part of a failure report as text; empty when it is none."""
    if delivery is None:
        return ""
    message = email.message_from_bytes(delivery.content, policy=email.policy.default)
    parts = [part for part in message.walk() if part.get_content_type() == "message/delivery-status"]
    blocks = parts[0].get_payload() if parts else []
    return "\n\n".join(str(block).strip() for block in blocks)


def surprises(recipients: Sequence[RecipientView], taken: Mapping[str, Sequence[Delivery]], report: str) -> list[str]:
    """Return a line for everything about recipients, servers and report that is not as expected."""
    found = []
    by_address = {each.address: each for each in recipients}
    for address, expected in EXPECTED.items():
        each = by_address.get(address)
        fate = each and Expected(each.state, each.last_relay.partition("[")[0], each.attempts)
        if fate != expected:
            found.append(f"{address}: expected {expected}, found {fate}")
        copies = sum(address in delivery.recipients for delivery in taken[expected.server])
        if copies != (expected.state is ShownState.SENT):
            found.append(f"{address}: {expected.server} took {copies} copies")
    found += [f"{address}: nobody expected it" for address in by_address.keys() - EXPECTED.keys()]
    found += [f"{address}: missing from the report" for address in REPORTED if address not in report]
    return found


def main() -> int:
    """Run the demonstration; return the exit code."""
    story = Story()
    outcomes = logging.getLogger("mailq.outcome")
    outcomes.setLevel(logging.INFO)
    outcomes.propagate = False
    outcomes.addHandler(story)
    with (
        tempfile.TemporaryDirectory(prefix="mailq-demo-") as folder,
        providers() as (servers, port),
        DnsServer(zone()) as dns,
    ):
        introduce(port)
        settings = settings_for(Path(folder), dns, port)
        with embedded(settings) as runtime:
            queue = mailq.Queue(settings=settings, store=runtime.store, ring=runtime.ringer.ring_all)
            queue_messages(queue, story)
            recipients = wait_until_finished(runtime.store)
        taken = {name: server.deliveries for name, server in servers.items()}
    reports = [delivery for delivery in taken["mx.home.test"] if not delivery.sender]
    report = delivery_status(reports[0] if reports else None)
    print_summary(recipients, report)
    wrong = surprises(recipients, taken, report)
    print("\n".join(["", *wrong, ""]) if wrong else f"\nAll {len(recipients)} recipients ended as they should.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
