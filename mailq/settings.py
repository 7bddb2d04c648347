"""Every setting: its name, unit, default and meaning, in one place.

A setting keeps the name of the Postfix parameter where there is one, without
the ``smtp_`` prefix. Durations are :class:`~datetime.timedelta`, sizes end in
``_bytes``. :mod:`mailq.settings_sources` is the only reader of the environment
and of files; it parses by the type given here and enforces the limits.

Source: postconf(5), smtp-delivery "Parameters".
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any


def setting(
    default: Any,
    doc: str,
    *,
    secret: bool = False,
    least: float = 0,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    may_be_empty: bool = False,
) -> Any:
    """Declare a setting: its default, and one line of meaning that says the unit where it is not a duration.

    Args:
        default: Of the field's own type.
        doc: Ends with a full stop; part of the reference.
        secret: Never shown as it is.
        least: Smallest number, in seconds for a duration.
        most: Largest number, likewise; None is no limit.
        choices: The only words accepted, for each element of a tuple; empty accepts any.
        may_be_empty: A tuple may choose none of the words.
    """
    limits = {"least": least, "most": most, "choices": choices, "may_be_empty": may_be_empty}
    return field(default=default, repr=not secret, metadata={"doc": doc, "secret": secret, **limits})


def _seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings; immutable. Sections follow the data: store, broker, worker, routing, session, retry."""

    # Store and broker
    database_url: str = setting(
        "", "SQLAlchemy URL of the queue; empty: a SQLite file in the user's data directory.", secret=True
    )
    broker_url: str = setting("memory://", "Celery broker; memory:// serves one process only.", secret=True)
    key_prefix: str = setting("mailq:", "Prefix of every key in Redis.")

    # This host
    myhostname: str = setting("", "Own name, used in HELO, Message-ID and reports; empty: the system's.")
    helo_name: str = setting("", "Argument of EHLO and HELO; empty: myhostname.")
    network: str = setting(
        "internet",
        "internet, or loopback: refuse to connect to any address outside this machine.",
        choices=("internet", "loopback"),
    )

    # Accepting mail
    message_size_limit_bytes: int = setting(10_240_000, "Largest content accepted; 0 is no limit.")
    max_recipients: int = setting(10_000, "Most recipients of one message.", least=1)
    publish_timeout: timedelta = setting(_seconds(1), "Longest time that ringing the broker may hold up an enqueue.")

    # Worker
    worker_concurrency: int = setting(100, "Sessions a worker process can hold: its threads.", least=1)
    dispatch_interval: timedelta = setting(_seconds(1), "Pause between two rounds of the dispatcher.", least=0.01)
    lease_time: timedelta = setting(_seconds(60), "A dead worker's mail is taken up again after this.", least=1)
    lease_recipients: int = setting(100, "Most recipients leased at a time.", least=1)
    task_time: timedelta = setting(_seconds(30), "A task stops taking new batches after this.")
    linger_time: timedelta = setting(_seconds(0.2), "A drained task waits this long for more mail of its nexthop.")
    stall_time: timedelta = setting(
        timedelta(hours=1), "A task that finishes no message for this long loses its mail to others.", least=1
    )
    ring_timeout: timedelta = setting(_seconds(30), "A ring that no worker answered is repeated after this.")
    hooks: str = setting("", "Own code that may change replies, outcomes, headers and senders, as module:attribute.")
    destination_concurrency_limit: int = setting(20, "Most sessions to one nexthop, over all workers; 0 is no limit.")
    destination_recipient_limit: int = setting(50, "Most recipients a transaction; 0 is no limit.")

    # Routing
    relayhost: str = setting("", "Destination of all mail; empty: the recipient's domain.")
    transport_maps: tuple[str, ...] = setting(
        (), "Exceptions to relayhost: domain=nexthop, .parent=nexthop or *=nexthop; lmtp:… for LMTP."
    )
    fallback_relay: tuple[str, ...] = setting((), "Destinations tried after a site is unreachable.")
    best_mx_transport: str = setting(
        "", "Where mail goes whose best MX is this host: [protocol:][nexthop]; empty: it bounces as a loop."
    )
    nameservers: tuple[str, ...] = setting((), "DNS servers, address or address:port; empty: the system's.")
    dns_timeout: timedelta = setting(_seconds(10), "Longest time for one DNS question, all servers and repeats.")
    disable_dns_lookups: bool = setting(False, "Use the system's name service, and no MX records.")
    host_lookup: tuple[str, ...] = setting(
        ("dns",), "How a host's addresses are found; with both, native where DNS has none.", choices=("dns", "native")
    )
    inet_protocols: tuple[str, ...] = setting(
        ("ipv4", "ipv6"), "Address families in use; all is both.", choices=("all", "ipv4", "ipv6")
    )
    inet_interfaces: tuple[str, ...] = setting(
        ("all",), "Own addresses: all, loopback-only, or a list; mail for them would loop."
    )
    proxy_interfaces: tuple[str, ...] = setting((), "Addresses of proxies in front of this host.")
    address_preference: str = setting(
        "any", "Family tried first within a preference: any, ipv4 or ipv6.", choices=("any", "ipv4", "ipv6")
    )
    balance_inet_protocols: bool = setting(True, "Keep both families within the address limit.")
    randomize_addresses: bool = setting(True, "Shuffle servers of equal preference.")
    ignore_mx_lookup_error: bool = setting(False, "Use the domain's own address when the MX lookup fails.")
    defer_if_no_mx_address_found: bool = setting(False, "Defer, not bounce, when no MX host has an address.")
    use_srv_lookup: tuple[str, ...] = setting(
        (), "Services whose servers SRV records name, where a destination names the service: submission, for example."
    )
    ignore_srv_lookup_error: bool = setting(False, "Look for MX records when the SRV lookup fails.")
    allow_srv_lookup_fallback: bool = setting(False, "Look for MX records when SRV records lead to no server at all.")
    mx_address_limit: int = setting(5, "Addresses tried a site; 0 is no limit.")
    mx_session_limit: int = setting(2, "Transactions tried a site; 0 is no limit.")
    tcp_port: str = setting("smtp", "Port or service of a destination that names none.")
    lmtp_tcp_port: str = setting("24", "The same for LMTP.")
    bind_address: str = setting("", "Source address for IPv4; empty: the system's choice.")
    bind_address6: str = setting("", "Source address for IPv6; empty: the system's choice.")
    bind_address_enforce: bool = setting(False, "Defer when the source address cannot be used.")

    # Session
    connect_timeout: timedelta = setting(_seconds(30), "TCP connect; 0 is the system's limit.")
    lmtp_connect_timeout: timedelta = setting(_seconds(0), "The same for LMTP.")
    helo_timeout: timedelta = setting(_seconds(300), "Greeting, EHLO, HELO, LHLO and AUTH.")
    starttls_timeout: timedelta = setting(_seconds(300), "STARTTLS and the handshake.")
    mail_timeout: timedelta = setting(_seconds(300), "MAIL FROM.")
    rcpt_timeout: timedelta = setting(_seconds(300), "Each RCPT TO.")
    data_init_timeout: timedelta = setting(_seconds(120), "DATA.")
    data_xfer_timeout: timedelta = setting(_seconds(180), "The content; what the server takes gives time back.")
    min_data_rate: int = setting(500, "Bytes of content that give a second back; 0: each write has the whole time.")
    data_done_timeout: timedelta = setting(_seconds(600), "The answer to the final dot.")
    rset_timeout: timedelta = setting(_seconds(20), "RSET.")
    quit_timeout: timedelta = setting(_seconds(300), "QUIT, where its answer is waited for.")
    skip_5xx_greeting: bool = setting(True, "A 5xx greeting only means: ask the next server.")
    skip_quit_response: bool = setting(True, "Do not wait for the answer to QUIT.")
    always_send_ehlo: bool = setting(True, "EHLO even when the greeting does not say ESMTP.")
    never_send_ehlo: bool = setting(False, "HELO always.")
    discard_ehlo_keywords: tuple[str, ...] = setting((), "EHLO keywords treated as not offered.")
    line_length_limit_bytes: int = setting(998, "Longer lines of content are folded; 0 is no limit.")
    send_dummy_mail_auth: bool = setting(False, "Append AUTH=<> to MAIL FROM on authenticated sessions.")
    disable_mime_output_conversion: bool = setting(False, "Never convert 8-bit content for a server without 8BITMIME.")
    tls_security_level: str = setting(
        "may", "none, may (use STARTTLS where offered) or encrypt (require it).", choices=("none", "may", "encrypt")
    )
    sasl_auth_enable: bool = setting(False, "Log in to servers that there are credentials for.")
    sasl_password_maps: tuple[str, ...] = setting(
        (), "Credentials, as destination=user:password; the destination as in relayhost, or a host name.", secret=True
    )
    sasl_mechanism_filter: tuple[str, ...] = setting((), "Mechanisms that may be used; empty: all that are known.")
    sasl_security_options: tuple[str, ...] = setting(
        ("noplaintext", "noanonymous"), "noplaintext: no mechanism that shows the password."
    )
    sasl_tls_security_options: tuple[str, ...] = setting(
        (), "The same inside TLS; empty: as sasl_security_options. For PLAIN inside TLS: noanonymous."
    )
    sasl_auth_soft_bounce: bool = setting(True, "A refused log-in defers mail, never bounces it.")
    tls_connection_reuse: bool = setting(True, "Keep sessions that use TLS, too.")
    soft_bounce: bool = setting(False, "Keep mail that would bounce.")

    # Kept sessions
    connection_cache_time_limit: timedelta = setting(_seconds(2), "Idle life of a kept session.")
    connection_reuse_time_limit: timedelta = setting(_seconds(300), "Total life of a session.")
    connection_reuse_count_limit: int = setting(0, "Most reuses of a session; 0 is no limit.")
    connection_cache_destinations: tuple[str, ...] = setting((), "Domains whose sessions are always kept.")
    connection_cache_on_demand: bool = setting(True, "Keep sessions of destinations with more mail waiting.")

    # Retry and reports
    minimal_backoff_time: timedelta = setting(_seconds(300), "Shortest wait before the next attempt.")
    maximal_backoff_time: timedelta = setting(_seconds(4000), "Longest wait before the next attempt.")
    maximal_queue_lifetime: timedelta = setting(timedelta(days=5), "Undelivered mail is returned after this.")
    bounce_queue_lifetime: timedelta = setting(timedelta(days=5), "The same for mail from the null sender.")
    backoff_jitter: float = setting(0.1, "Share of a wait, 0 to 1, added at random so that retries spread.", most=1)
    bounce_size_limit_bytes: int = setting(50_000, "Reports return larger originals as headers only; 0 is no limit.")
    report_wait: timedelta = setting(
        _seconds(300), "A report waits at most this long for the message's other recipients' attempt."
    )
    delay_warning_time: timedelta = setting(
        _seconds(0), "The sender is told once of a message that is still deferred after this; 0: never."
    )
    notify_classes: tuple[str, ...] = setting(
        ("resource", "software"),
        "What the postmaster is told of. bounce, 2bounce, delay: copies of reports, and failed reports; "
        "protocol, data: transcripts of sessions; the others tell nothing.",
        choices=("bounce", "2bounce", "data", "delay", "policy", "protocol", "resource", "software"),
        may_be_empty=True,
    )
    double_bounce_sender: str = setting(
        "double-bounce", "Sender of mail to the postmaster; when it fails, nobody is told. Without @: at myhostname."
    )
    bounce_notice_recipient: str = setting(
        "postmaster", "Gets headers of undelivered mail, with class bounce. Without @: at myhostname."
    )
    double_bounce_notice_recipient: str = setting(
        "postmaster",
        "Gets undelivered mail of the null sender, with class bounce or 2bounce. Postfix: 2bounce_notice_recipient.",
    )
    delay_notice_recipient: str = setting("postmaster", "Gets headers of delayed mail, with class delay.")
    error_notice_recipient: str = setting(
        "postmaster", "Gets transcripts of troubled sessions, with class protocol or data."
    )

    @property
    def address_families(self) -> tuple[str, ...]:
        """The families of ``inet_protocols`` by name, IPv4 first."""
        wanted = ("ipv4", "ipv6") if "all" in self.inet_protocols else self.inet_protocols
        return tuple(family for family in ("ipv4", "ipv6") if family in wanted)
