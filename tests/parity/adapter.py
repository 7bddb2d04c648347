#!/usr/bin/env python3
"""Plays recorded Postfix scenarios to mailq: reads one job as JSON, prints what became of each recipient.

It has no behaviour of its own: Postfix parameters become settings of the same
name, messages become requests. Mode "attempt" runs the routine once for each
message; mode "queue" runs store, dispatcher and reports until the queue is empty.
"""

import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENT = CHECKOUT / ".venv"

if __name__ == "__main__" and sys.prefix == sys.base_prefix and (ENVIRONMENT / "bin/python").exists():
    # Called by its name: the dependencies are in the environment that `make test` made.
    os.execv(ENVIRONMENT / "bin/python", [str(ENVIRONMENT / "bin/python"), __file__])

sys.path.insert(0, str(CHECKOUT))

from mailq.api import Queue
from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest, Encoding, Notify, Protocol, Recipient, Ret
from mailq.errors import DestinationSyntaxError
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.queue.views import RecipientView
from mailq.routing.interfaces import system_addresses
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.settings_sources import load
from mailq.settings_values import FIELDS
from mailq.smtp.connection import SocketConnector
from mailq.status import Deferred, Delivered, Outcome, RecipientId
from mailq.worker.embedded import embedded
from mailq.worker.wiring import SystemClock

# Postfix 3.7's defaults where ours differ, and those of the recordings.
RECORDED_DEFAULTS = {
    "inet_protocols": "ipv4",
    "inet_interfaces": "127.0.0.1",
    "tls_security_level": "none",
    "tls_connection_reuse": "no",
    "tls_wrappermode": "no",
    "backoff_jitter": "0",
    "database_url": "sqlite://",
}

# A setting's name cannot start with a digit.
RENAMED = {"2bounce_notice_recipient": "double_bounce_notice_recipient"}

# A report is queued within one round of the dispatcher after the last attempt.
REPORT_SECONDS = 2.5


class Files:
    """Content by the path it lies at, line ends as on the wire."""

    @contextmanager
    def open(self, queue_id: str) -> Iterator[io.BytesIO]:
        yield io.BytesIO(content_of(queue_id))


def content_of(path: str) -> bytes:
    return Path(path).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def settings_for(job: Mapping[str, Any]) -> Settings:
    given = {} if job["mode"] == "queue" else {"minimal_backoff_time": "1h"}
    for given_name, value in job["config"].items():
        name = RENAMED.get(given_name, given_name)
        bare = name.removeprefix("smtp_").removeprefix("lmtp_")
        names = (name, bare, bare.lower(), f"{name}_bytes", f"{bare}_bytes")
        known = next((n for n in names if n in FIELDS), None)
        if known is None:
            print(f"no setting for {name}", file=sys.stderr)
        else:
            given[known] = value
    dns = f"{job['dns']['addr']}:{job['dns']['port']}"
    host = {"myhostname": job["hostname"], "nameservers": dns, "proxy_interfaces": ",".join(job["own_addresses"])}
    host["tls_policy_maps"] = tuple(f"{destination}={policy}" for destination, policy in job["tls_policy"].items())
    logins = tuple(f"{destination}={login}" for destination, login in job["sasl_passwords"].items())
    settings = load(environ={}, mapping=RECORDED_DEFAULTS | host | given)
    return replace(settings, sasl_password_maps=logins)


def request_for(job: Mapping[str, Any], message: Mapping[str, Any], settings: Settings) -> DeliveryRequest:
    dsn = message["dsn"]
    notify = frozenset(Notify(word) for word in filter(None, dsn.get("notify", "").upper().split(",")))
    recipients = tuple(
        Recipient(RecipientId(number), address, dsn.get("orcpt", ""), notify)
        for number, address in enumerate(message["recipients"], 1)
    )
    content = content_of(message["message_path"])
    header = content.partition(b"\r\n\r\n")[0]
    return DeliveryRequest(
        queue_id=message["message_path"],
        nexthop=job["nexthop"] or settings.relayhost or message["recipients"][0].rpartition("@")[2],
        protocol=Protocol(job["transport"]),
        sender=message["sender"],
        recipients=recipients,
        size_bytes=len(content),
        arrived_at=datetime.fromtimestamp(message["arrival_time"], UTC),
        active_at=datetime.now(UTC),
        encoding={"8BITMIME": Encoding.EIGHT_BIT, "7BIT": Encoding.SEVEN_BIT}.get(message["body"]),
        smtputf8=message["smtputf8"],
        utf8_header=not header.isascii(),
        envid=dsn.get("envid", ""),
        ret=Ret(dsn["ret"]) if dsn.get("ret") else None,
    )


def result_of(outcome: Outcome) -> dict[str, str | None]:
    if isinstance(outcome, Delivered):
        return {
            "status": "sent",
            "dsn": str(outcome.reply.status),
            "reason": outcome.reply.text,
            "relay": str(outcome.endpoint),
        }
    failure = outcome.failure
    return {
        "status": "deferred" if isinstance(outcome, Deferred) else "bounced",
        "dsn": str(failure.status),
        "reason": failure.reason,
        "relay": str(failure.relay) if failure.relay else None,
    }


def attempt(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    settings = settings_for(job)
    clock = SystemClock()
    sessions = SessionCache(clock, idle_time=settings.connection_cache_time_limit)
    ports = Ports(
        clock=clock,
        resolver=DnsResolver(settings),
        connector=SocketConnector(settings),
        bodies=Files(),
        rng=Random(),
        own_addresses=system_addresses(settings),
    )
    answers = []
    for message in job["messages"]:
        time.sleep(message.get("gap", 0))
        request = request_for(job, message, settings)
        try:
            report = deliver(request, ports=ports, settings=settings, sessions=sessions, on_settled=lambda _: None)
        except DestinationSyntaxError as error:
            print(error, file=sys.stderr)
            results = {}
        else:
            results = {r.address: result_of(report.outcomes[r.id]) for r in request.recipients}
        answers.append({"id": message["id"], "results": results})
    time.sleep(settings.connection_cache_time_limit.total_seconds())
    sessions.close()
    return answers


def stored_result(recipient: RecipientView) -> dict[str, str | None]:
    words = {ShownState.SENT: "sent", ShownState.BOUNCED: "bounced", ShownState.EXPIRED: "expired"}
    return {
        "status": words.get(recipient.state, "deferred"),
        "dsn": recipient.last_status,
        "reason": recipient.last_reason,
        "relay": recipient.last_relay or None,
    }


def submit(queue: Queue, message: Mapping[str, Any]) -> str:
    dsn = message["dsn"]
    return queue.send(
        content_of(message["message_path"]),
        sender=message["sender"],
        recipients=message["recipients"],
        notify=[word for word in dsn.get("notify", "").upper().split(",") if word],
        ret=dsn.get("ret"),
        envid=dsn.get("envid", ""),
    )


def run_queue(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    routes = dict(job["routes"])
    if job["nexthop"]:
        domains = {r.rpartition("@")[2] for message in job["messages"] for r in message["recipients"]}
        routes |= dict.fromkeys(domains, f"{job['transport']}:{job['nexthop']}")
    with tempfile.TemporaryDirectory() as directory:
        settings = replace(
            settings_for(job),
            database_url=f"sqlite:///{directory}/queue.sqlite3",
            transport_maps=tuple(f"{domain}={route}" for domain, route in routes.items()),
        )
        with embedded(settings) as runtime:
            queue = Queue(settings=settings, store=runtime.store)
            ids = {}
            for message in job["messages"]:
                time.sleep(message.get("gap", 0))
                ids[message["id"]] = submit(queue, message)
            wait_until_empty(runtime.store, job["max_wait"])
            return [
                {"id": name, "results": {r.address: stored_result(r) for r in runtime.store.show(queue_id).recipients}}
                for name, queue_id in ids.items()
            ]


def wait_until_empty(store: Store, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    empty_since = None
    while time.monotonic() < deadline:
        counts = store.counts()
        waiting = sum(counts[state] for state in (ShownState.QUEUED, ShownState.DEFERRED, ShownState.ACTIVE))
        if waiting:
            empty_since = None
        elif empty_since is None:
            empty_since = time.monotonic()
        elif time.monotonic() - empty_since > REPORT_SECONDS:
            return
        time.sleep(0.1)


def main() -> None:
    job = json.load(sys.stdin)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    answers = run_queue(job) if job["mode"] == "queue" else attempt(job)
    print(json.dumps({"messages": answers}))


if __name__ == "__main__":
    main()
