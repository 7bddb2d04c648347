"""What a scripted SMTP server says: values that describe a provider's behaviour.

An *answer* is one of

- a text, sent with CRLF; its line feeds become line ends of a multi-line reply;
- a list of answers, used one after the other over all connections; the last one repeats;
- a function of the command's argument that returns a text;
- the empty text, which leaves the answer to the server's good sense.

A text may end in an action, which follows the words before it: ``!drop``
closes the connection, ``!rst`` resets it, ``!stall`` says nothing more until
the client goes away, ``!garbage`` sends what is neither SMTP nor TLS and
closes. ``"421 4.3.2 Going down !drop"`` speaks and then hangs up.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

Answer = str | Sequence[str] | Callable[[str], str]

DEFAULT_EXTENSIONS: Final = (
    "PIPELINING",
    "8BITMIME",
    "SIZE 10485760",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "SMTPUTF8",
)

_ACTION: Final = re.compile(r"(?:^|\s)!(drop|rst|stall|garbage)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A server's answers, one field a command.

    Attributes:
        greeting: The answer to the connection itself.
        ehlo: Empty: *name* and the extensions. The argument of a function is the client's name.
        helo: As for ehlo.
        starttls: After a 2xx answer TLS begins. Empty: 220 where the server has a certificate, else 502.
        mail: The argument of a function is the sender.
        rcpt: The argument of a function is the recipient. Empty: 250 after a good MAIL, else 503.
        data: Empty: 354 where a recipient was accepted, else 503.
        dot: Empty: 250 with a number. The argument is the recipient (LMTP), or all of them with commas between.
        rset: After it the transaction is forgotten, whatever the answer.
        noop: To NOOP.
        quit: The connection is closed after it.
        unknown: To everything else.
        name: What the server calls itself.
        extensions: Announced to EHLO and LHLO; STARTTLS is added where the server has a certificate.
        during_content: Said in the middle of the content; only useful with an action at its end.
        during_content_after_bytes: How much content is read before that.
        delay_seconds: Waited before each answer.
    """

    greeting: Answer = ""
    ehlo: Answer = ""
    helo: Answer = ""
    starttls: Answer = ""
    mail: Answer = "250 2.1.0 Ok"
    rcpt: Answer = ""
    data: Answer = ""
    dot: Answer = ""
    rset: Answer = "250 2.0.0 Ok"
    noop: Answer = "250 2.0.0 Ok"
    quit: Answer = "221 2.0.0 Bye"
    unknown: Answer = "502 5.5.2 Command not recognised"
    name: str = "mx.test"
    extensions: tuple[str, ...] = DEFAULT_EXTENSIONS
    during_content: Answer = ""
    during_content_after_bytes: int = 0
    delay_seconds: float = 0.0


def split_action(text: str) -> tuple[str, str]:
    """Return the words of an answer and its action without the ``!``; empty where there is none."""
    match = _ACTION.search(text)
    return (text[: match.start()], match[1]) if match else (text, "")


def accepting() -> Script:
    """Take every message."""
    return Script()


def rejecting(*addresses: str, reply: str = "550 5.1.1 User unknown") -> Script:
    """Refuse these recipients and take the others; without addresses refuse all."""
    refused = {address.lower() for address in addresses}

    def rcpt(recipient: str) -> str:
        return reply if not refused or recipient.lower() in refused else "250 2.1.5 Ok"

    return Script(rcpt=rcpt)


def greylisting(
    *, attempts: int = 1, seconds: float = 0.0, reply: str = "451 4.7.1 Greylisted, please try again later"
) -> Script:
    """Put each recipient off a number of times, and until some time has passed since the first."""
    lock = threading.Lock()
    seen: Counter[str] = Counter()
    first_seen: dict[str, float] = {}

    def rcpt(recipient: str) -> str:
        now = time.monotonic()
        with lock:
            since = now - first_seen.setdefault(recipient, now)
            seen[recipient] += 1
            return reply if seen[recipient] <= attempts or since < seconds else "250 2.1.5 Ok"

    return Script(rcpt=rcpt)
