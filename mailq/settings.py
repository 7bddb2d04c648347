"""Every setting: its name, unit, default and meaning, in one place.

A setting keeps the name of the Postfix parameter where there is one, without
the ``smtp_`` prefix. Durations are :class:`~datetime.timedelta`, sizes end in
``_bytes``. :mod:`mailq.settings_sources` is the only reader of the environment
and of files; it parses by the type given here and enforces the limits.

Source: postconf(5), smtp-delivery "Parameters".
"""

from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final


def setting(
    default: Any,
    doc: str,
    *,
    secret: bool = False,
    least: float = 0,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    may_be_empty: bool = False,
    entries: bool = False,
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
        entries: The elements of a tuple are ``key=value`` with spaces in them: as text they are separated by
            semicolons or line ends, and a table stands for them, too.
    """
    limits = {"least": least, "most": most, "choices": choices, "may_be_empty": may_be_empty, "entries": entries}
    return field(default=default, repr=not secret, metadata={"doc": doc, "secret": secret, **limits})


def _seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


SASL_OPTIONS: Final = ("noplaintext", "noactive", "nodictionary", "noanonymous", "mutual_auth")


@lru_cache(maxsize=16)
def _families(protocols: tuple[str, ...]) -> tuple[str, ...]:
    wanted = ("ipv4", "ipv6") if "all" in protocols else protocols
    return tuple(family for family in ("ipv4", "ipv6") if family in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings; immutable. Sections follow the data: store, broker, worker, routing, session, retry."""

    # Store and broker
    database_url: str = setting(
        "", "SQLAlchemy URL of the queue; empty: a SQLite file in the user's data directory.", secret=True
    )
    broker_url: str = setting("memory://", "Celery broker; memory:// serves one process only.", secret=True)
    key_prefix: str = setting("mailq:", "Prefix of every key in Redis.")
    content_url: str = setting(
        "", "Where large content lies outside the database: file:///… or another URL of fsspec; empty: nowhere."
    )
    content_threshold_bytes: int = setting(1_048_576, "Content above this size goes to content_url.")

    # History
    history_lifetime: timedelta = setting(
        timedelta(days=30), "Finished messages and their attempts are deleted after this; 0: never."
    )
    transcripts: str = setting(
        "failures",
        "Of which attempts the history keeps what was said: failures, all or none; no content, no credentials.",
        choices=("failures", "all", "none"),
    )
    transcript_lines: int = setting(100, "Most lines of a session that are kept, the last ones.", least=1, most=1000)
    transcript_lifetime: timedelta = setting(timedelta(days=7), "Transcripts are deleted after this; 0: never.")

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
    publish_timeout: timedelta = setting(
        _seconds(1), "Longest time that a broker may hold up who rings it, or the end of a process."
    )

    # Worker
    worker_concurrency: int = setting(100, "Sessions a worker process can hold: its threads.", least=1)
    worker_processes: int = setting(
        0,
        "Processes of a worker; 0: one for each processor that it may use, 4 at most, and 1 with SQLite or memory://.",
        least=0,
    )
    dispatch_interval: timedelta = setting(_seconds(1), "Pause between two rounds of the dispatcher.", least=0.01)
    lease_time: timedelta = setting(_seconds(60), "A dead worker's mail is taken up again after this.", least=1)
    unrecorded_limit: int = setting(
        64, "Most messages a session may send before the first one's outcome is recorded; 1: none.", least=1, most=100
    )
    lease_recipients: int = setting(100, "Most recipients leased at a time.", least=1)
    task_time: timedelta = setting(
        _seconds(30), "A task ends after this where another could use its thread or share its mail."
    )
    linger_time: timedelta = setting(_seconds(1), "A drained task waits this long for more mail of its nexthop.")
    stall_time: timedelta = setting(
        timedelta(hours=1), "A task that finishes no message for this long loses its mail to others.", least=1
    )
    ring_timeout: timedelta = setting(_seconds(30), "A ring that no worker answered is repeated after this.")
    hooks: str = setting(
        "",
        "Own code that may change replies, outcomes, headers and senders, and find log-ins, as module:attribute.",
    )
    on_outcome: str = setting(
        "",
        "Own function that is told what became of each recipient, once that is recorded, as module:attribute.",
    )
    metrics_address: str = setting(
        "",
        "Where a worker shows its metrics: host:port, or :port on loopback; the other processes at those behind it; "
        "empty: nowhere.",
    )
    destination_concurrency_limit: int = setting(20, "Most sessions to one nexthop, over all workers; 0 is no limit.")
    batch_time: timedelta = setting(
        _seconds(1),
        "A session looks for more urgent mail after this much work; one message may take longer.",
        least=0.01,
    )
    urgent_priority: int = setting(
        2,
        "Mail of this priority and those before it may use the sessions kept free for it; -1: none.",
        least=-1,
        most=9,
    )
    urgent_sessions: float = setting(
        0.1, "Share of destination_concurrency_limit, 0 to 1, kept free for urgent mail; one session at least.", most=1
    )
    destination_recipient_limit: int = setting(50, "Most recipients a transaction; 0 is no limit.")
    initial_destination_concurrency: int = setting(
        5, "Sessions to a nexthop of which nothing is known yet; more are begun while things go well.", least=1
    )
    destination_concurrency_positive_feedback: str = setting(
        "1",
        "What a good session adds to the sessions of its nexthop: a number from 0 to 1, number/number, or "
        "number/concurrency, which divides it by those there are.",
    )
    destination_concurrency_negative_feedback: str = setting("1", "What a session takes away that found the site bad.")
    destination_concurrency_failed_cohort_limit: int = setting(
        1, "A nexthop is dead after so many failures of as many sessions as it has; 0: never."
    )
    destination_rate_delay: timedelta = setting(
        _seconds(0), "Pause of a nexthop after each delivery; above 0 it has one session."
    )
    limits_file: str = setting(
        "", "TOML file of limits for destinations, sites, providers, accounts, tenants and sources; empty: none."
    )
    limits_fallback: str = setting(
        "sql",
        "While Redis is lost: sql, sessions are counted in the database and one worker serves without rings; or wait.",
        choices=("sql", "wait"),
    )

    # Monitoring
    metrics_sites: int = setting(
        20, "Most destinations, and most keys of limits, that have a time series of their own; the rest is other."
    )
    flower_user: str = setting("mailq", "Who may look at Flower.")
    flower_password: str = setting("", "Their password; without one, mailq flower does not start.", secret=True)
    log_format: str = setting(
        "text",
        "Form of the log of a worker and of mailq metrics: text, or json, one object a line.",
        choices=("text", "json"),
    )
    log_addresses: str = setting(
        "full",
        "What that log shows of mail addresses: full; domain, ***@example.org; or none.",
        choices=("full", "domain", "none"),
    )

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
    lmtp_assume_final: bool = setting(
        True, "Success reports say delivered where an LMTP server without DSN took the mail; no: relayed."
    )
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
        "may",
        "Encryption of destinations that tls_policy_maps does not name: none, may (STARTTLS where offered), encrypt "
        "(require it), fingerprint, dane (by TLSA records where there are any), dane-only, verify or secure.",
        choices=("none", "may", "encrypt", "fingerprint", "dane", "dane-only", "verify", "secure"),
    )
    tls_policy_maps: tuple[str, ...] = setting(
        (),
        "Exceptions: nexthop=level name=value …, for a domain, .parent or a destination as written. Names: match, "
        "ciphers, protocols, exclude, servername, tafile, connection_reuse, policy_type, mx_host_pattern.",
        entries=True,
    )
    tls_wrappermode: str = setting(
        "auto",
        "TLS from the first byte, without STARTTLS: no, yes, or auto: where the port is 465, at least at encrypt.",
        choices=("no", "yes", "auto"),
    )
    tls_servername: str = setting(
        "hostname",
        "Name in the TLS hello: hostname, nexthop, or a name; with DANE it is always the name of the TLSA records.",
    )
    tls_verify_cert_match: tuple[str, ...] = setting(
        ("hostname",),
        "Names of which a certificate must bear one at level verify: hostname, nexthop, dot-nexthop, or names.",
    )
    tls_secure_cert_match: tuple[str, ...] = setting(("nexthop", "dot-nexthop"), "The same at level secure.")
    tls_fingerprint_cert_match: tuple[str, ...] = setting(
        (), "Fingerprints of certificates or public keys, of which one must match at level fingerprint."
    )
    tls_fingerprint_digest: str = setting(
        "sha256",
        "Their hash function.",
        choices=("md5", "sha1", "sha224", "sha256", "sha384", "sha512"),
    )
    dns_support_level: str = setting(
        "enabled",
        "enabled, or dnssec: the name servers validate, and the way to them is safe. Level dane needs it.",
        choices=("enabled", "dnssec"),
    )
    tls_dane_insecure_mx_policy: str = setting(
        "dane",
        "Level of a server with TLSA records whose MX record is not validated.",
        choices=("may", "encrypt", "dane"),
    )
    tls_force_insecure_host_tlsa_lookup: bool = setting(
        False, "Ask for TLSA records of hosts whose addresses are not validated, too."
    )
    tls_enforce_sts_mx_patterns: bool = setting(
        True, "Follow mx_host_pattern of entries with policy_type=sts: other servers are passed over."
    )
    tls_required_enable: bool = setting(True, "Follow the header TLS-Required: No, which asks for mail without TLS.")
    requiretls_enable: bool = setting(True, "Follow REQUIRETLS, which asks for mail with TLS only.")
    requiretls_policy: tuple[str, ...] = setting(
        (),
        "How far: domain=word, .parent=word, or a word for all others; enforce, opportunistic+starttls, opportunistic "
        "or disable. Empty: opportunistic for myhostname, its subdomains, localhost and addresses, else enforce.",
    )
    mta_sts: bool = setting(False, "Follow the MTA-STS policies of domains, where DANE does not apply.")
    mta_sts_cafile: str = setting(
        "", "PEM file of the authorities that policy hosts and report collectors are checked by; empty: the system's."
    )
    mta_sts_timeout: timedelta = setting(
        _seconds(10), "Longest time that fetching a domain's policy may hold up its mail, DNS included.", least=0.1
    )
    tls_reports: bool = setting(
        False, "Count how TLS went, and report it once a day to the domains that ask for it (TLSRPT)."
    )
    tls_report_organization: str = setting("", "Name of the sending organization in TLS reports; empty: myhostname.")
    tls_report_contact: str = setting(
        "", "Address in TLS reports, and their author; empty: postmaster. Without @: at myhostname."
    )
    sasl_auth_enable: bool = setting(False, "Log in to servers that there are credentials for.")
    sasl_password_maps: tuple[str, ...] = setting(
        (),
        "Credentials, as destination=user:password, or file:path of a file of them; the destination as in relayhost, "
        "or a host name.",
        secret=True,
    )
    sender_dependent_authentication: bool = setting(
        False, "Look for credentials by the sender's address, then by its @domain, before host and destination."
    )
    sasl_mechanism_filter: tuple[str, ...] = setting(
        (), "Mechanisms that may be used; !name forbids one, static:rest allows the others; empty: all that are known."
    )
    sasl_security_options: tuple[str, ...] = setting(
        ("noplaintext", "noanonymous"),
        "What a mechanism must be. noplaintext: it shows neither password nor token; noactive: nor can it be attacked "
        "in between; nodictionary: nor guessed from what was seen; mutual_auth: the server proves itself, too.",
        choices=SASL_OPTIONS,
        may_be_empty=True,
    )
    sasl_tls_security_options: tuple[str, ...] = setting(
        (),
        "The same inside TLS; empty: as sasl_security_options. For PLAIN inside TLS: noanonymous.",
        choices=SASL_OPTIONS,
        may_be_empty=True,
    )
    sasl_tls_verified_security_options: tuple[str, ...] = setting(
        (),
        "The same where the server has proved its name; empty: as sasl_tls_security_options.",
        choices=SASL_OPTIONS,
        may_be_empty=True,
    )
    sasl_auth_cache_time: timedelta = setting(
        _seconds(0),
        "A password that a server refused is not tried again for this long, by any worker; 0: always tried.",
    )
    sasl_auth_soft_bounce: bool = setting(True, "A refused log-in defers mail, never bounces it.")
    tls_protocols: tuple[str, ...] = setting(
        (">=TLSv1.2",), "TLS versions at level may: >=TLSv1.2, !TLSv1.3, or a list; older ones only where named."
    )
    tls_mandatory_protocols: tuple[str, ...] = setting((">=TLSv1.2",), "The same above level may.")
    tls_ciphers: str = setting(
        "medium", "Least ciphers up to TLS 1.2 at level may: high, medium, null, or a list in OpenSSL's words."
    )
    tls_mandatory_ciphers: str = setting("medium", "The same above level may.")
    tls_exclude_ciphers: tuple[str, ...] = setting((), "Ciphers never used, such as 3DES or kRSA.")
    tls_cafile: str = setting(
        "", "PEM file of trusted authorities; with tls_capath empty, too: the system's. Postfix: smtp_tls_CAfile."
    )
    tls_capath: str = setting("", "Directory of trusted authorities, made by openssl rehash. Postfix: smtp_tls_CApath.")
    tls_session_cache_timeout: timedelta = setting(
        _seconds(3600), "A TLS session is resumed by later connections to its server for this long; 0: never."
    )
    tls_connection_reuse: bool = setting(True, "Keep sessions that use TLS, too.")
    soft_bounce: bool = setting(False, "Keep mail that would bounce or expire.")

    # Kept sessions
    connection_cache_time_limit: timedelta = setting(_seconds(2), "Idle life of a kept session.")
    connection_reuse_time_limit: timedelta = setting(_seconds(300), "Total life of a session.")
    connection_reuse_count_limit: int = setting(0, "Most reuses of a session; 0 is no limit.")
    connection_cache_destinations: tuple[str, ...] = setting((), "Domains whose sessions are always kept.")
    connection_cache_on_demand: bool = setting(True, "Keep sessions of destinations with more mail waiting.")

    # What nobody knows, and what makes us stumble
    uncertain_policy: str = setting(
        "retry",
        "Mail of which nobody knows whether it was sent, since the final dot was not answered or the worker was lost: "
        "retry, hold, or assume-sent.",
        choices=("retry", "hold", "assume-sent"),
    )
    uncertain_policies: tuple[str, ...] = setting((), "The same for single classes of mail, as class=policy.")
    quarantine_after: int = setting(
        3, "So many attempts in a row that make our own code, a hook or a worker fail put mail in quarantine.", least=1
    )

    # Retry and reports
    minimal_backoff_time: timedelta = setting(_seconds(300), "Shortest wait before the next attempt.")
    maximal_backoff_time: timedelta = setting(_seconds(4000), "Longest wait before the next attempt.")
    maximal_queue_lifetime: timedelta = setting(timedelta(days=5), "Undelivered mail is returned after this.")
    bounce_queue_lifetime: timedelta = setting(timedelta(days=5), "The same for mail from the null sender.")
    backoff_jitter: float = setting(0.1, "Share of a wait, 0 to 1, added at random so that retries spread.", most=1)
    retry_schedules: tuple[str, ...] = setting(
        (),
        "Schedules of one's own: name=waits after each attempt, then options: repeat=no, jitter=, expires=, warn=. "
        "For example urgent=1m 5m 15m 1h expires=2d.",
        entries=True,
    )
    retry_schedule_for: tuple[str, ...] = setting(
        (),
        "Who follows them: class:name=schedule, tenant:name=schedule, nexthop:name=schedule. A class goes before a "
        "tenant, a tenant before a nexthop.",
        entries=True,
    )
    bounce_size_limit_bytes: int = setting(50_000, "Reports return larger originals as headers only; 0 is no limit.")
    report_wait: timedelta = setting(
        _seconds(300), "A report waits at most this long for the message's other recipients' attempt."
    )
    delay_warning_time: timedelta = setting(
        _seconds(0), "The sender is told once of a message that is still deferred after this; 0: never."
    )
    confirm_delay_cleared: bool = setting(
        False, "A sender who was told of a delay is told of the delivery, too, unless NOTIFY has no DELAY."
    )
    bounce_template_file: str = setting(
        "", "File with one's own words for reports, in Postfix's form; empty: those that come with mailq."
    )
    default_verp_delimiters: str = setting(
        "+=", "The two characters of envelope senders by recipient where none are given: user+name=domain@example.org."
    )
    verp_delimiter_filter: str = setting("-=+", "Characters that may be such delimiters.")
    disable_verp_bounces: bool = setting(
        False, "One failure report to the plain sender, not one to the sender of each recipient."
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
        return _families(tuple(self.inet_protocols))
