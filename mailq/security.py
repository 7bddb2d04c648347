"""The words for encryption: how much of it a server must have, and what a session had.

Source: RFC 3207, RFC 6698, RFC 7672, RFC 8461, smtp-delivery P-01 to P-09.
"""

from dataclasses import dataclass, field

from mailq.words import Word


class TlsLevel(Word):
    """How much TLS is asked for; the value is the word in settings. Ordered by strength.

    ``HALF_DANE`` cannot be configured: it is ``dane`` where the MX records were not validated. Source: P-05, P-09.
    """

    NONE = "none"
    MAY = "may"
    ENCRYPT = "encrypt"
    FINGERPRINT = "fingerprint"
    HALF_DANE = "half-dane"
    DANE = "dane"
    DANE_ONLY = "dane-only"
    VERIFY = "verify"
    SECURE = "secure"

    @property
    def rank(self) -> int:
        """Place in the order of strength, 0 for none. Source: P-01 to P-08."""
        return list(TlsLevel).index(self)

    @property
    def required(self) -> bool:
        """Whether mail waits rather than go without TLS. Source: P-09."""
        return self.rank > TlsLevel.MAY.rank

    @property
    def authenticated(self) -> bool:
        """Whether the server must prove who it is. Source: P-09."""
        return self.rank > TlsLevel.ENCRYPT.rank


class RequireTls(Word):
    """How far a message's wish for TLS all the way is followed; the value is the word in settings. Source: P-50."""

    DISABLE = "disable"
    OPPORTUNISTIC = "opportunistic"
    OPPORTUNISTIC_STARTTLS = "opportunistic+starttls"
    ENFORCE = "enforce"

    @property
    def demands_tls(self) -> bool:
        """Whether the message may not go without encryption. Source: P-53."""
        return self in {RequireTls.OPPORTUNISTIC_STARTTLS, RequireTls.ENFORCE}


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """One TLSA record, as in DNS. Source: RFC 6698 §2.1."""

    usage: int
    selector: int
    matching_type: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching_type} {self.data.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPolicy:
    """What TLS one server must have. Hashable: sessions and contexts are shared by those with an equal policy.

    Who wanted it, and for whose report, makes no difference to that.

    Attributes:
        level: Never ``dane`` or ``dane-only`` without usable records in ``tlsa``.
        match: Names of which the certificate must bear one; ``.example.com`` stands for every subdomain. Only for
            the levels that look at names.
        fingerprints: Digests of a certificate or public key, lower-case hexadecimal, of which one must match.
        fingerprint_digest: Their hash function: ``sha256`` or ``sha1`` or another of ``hashlib``.
        tlsa: Usable records, usages 2 and 3 only; they replace the authorities at the DANE levels.
        protocols: As in ``tls_protocols``: ``>=TLSv1.2``, ``!TLSv1.3`` …
        ciphers: Grade: ``high``, ``medium``, ``null``, or a list in OpenSSL's words.
        exclude_ciphers: Of these, none.
        server_name: For the TLS hello; empty: the host's name.
        trust_anchors: PEM file of authorities for this destination alone; empty: those of the settings.
        wrapper: TLS from the first byte, without STARTTLS.
        reuse: The session may be kept.
        source: What decided, for people: ``tls_security_level``, ``tls_policy_maps``, ``DANE``, ``MTA-STS`` …
        report_type: Of TLS reports: ``tlsa``, ``sts`` or ``no-policy-found``. Source: RFC 8460 §4.2.
        report_domain: Whose policy it was; empty: nothing is reported.
        report_strings: The policy in its own words, for reports.
        requires: What of the message's REQUIRETLS is followed; above ``disable``, MAIL asks for it where it is offered.
            Source: RFC 8689, P-50 to P-53.
    """

    level: TlsLevel
    match: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    fingerprint_digest: str = "sha256"
    tlsa: tuple[TlsaRecord, ...] = ()
    protocols: tuple[str, ...] = ()
    ciphers: str = ""
    exclude_ciphers: tuple[str, ...] = ()
    server_name: str = ""
    trust_anchors: str = ""
    wrapper: bool = False
    reuse: bool = True
    source: str = field(default="tls_security_level", compare=False)
    report_type: str = field(default="no-policy-found", compare=False)
    report_domain: str = field(default="", compare=False)
    report_strings: tuple[str, ...] = field(default=(), compare=False)
    requires: RequireTls = RequireTls.DISABLE

    def __hash__(self) -> int:
        # Of what tells most policies apart: sessions are looked up by policies for each message.
        return hash((self.level, self.match, self.requires))

    @property
    def verifies(self) -> bool:
        """Whether the certificate is looked at: to be proved, or with names at a lower level, to be reported on.

        Source: RFC 8461 §5, mode testing.
        """
        return self.level.authenticated or bool(self.match)


NO_TLS = TlsPolicy(level=TlsLevel.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsResult:
    """What a session's encryption was; stored with the attempt, shown to people. Holds no secret.

    Attributes:
        level: That was asked for.
        source: What asked for it.
        protocol: ``TLSv1.3``; empty: the session was in plaintext.
        cipher: OpenSSL's name of the suite.
        bits: Of the secret key; 0 in plaintext.
        peer_name: The certificate's name that was matched, else its first; empty: none.
        fingerprint: SHA-256 of the certificate, hexadecimal; empty: none.
        verified_by: How the server proved who it is: ``TLSA 3 1 1 …``, ``trusted chain, name mx.example.com``,
            ``fingerprint …``; empty: it did not.
        problem: Why it did not, or why there was no TLS; empty: no problem.
        resumed: An earlier session's keys were used.
    """

    level: TlsLevel
    source: str
    protocol: str = ""
    cipher: str = ""
    bits: int = 0
    peer_name: str = ""
    fingerprint: str = ""
    verified_by: str = ""
    problem: str = ""
    resumed: bool = False

    @property
    def encrypted(self) -> bool:
        """Whether there was TLS."""
        return bool(self.protocol)
