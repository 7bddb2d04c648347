"""Refused log-ins worth remembering: a wrong password stays wrong until somebody changes it.

Only what is needed to recognise the same password is kept: a slow, salted
hash. A log-in by token is never remembered, for tokens change by themselves.

Source: smtp-delivery P-68, postconf(5) smtp_sasl_auth_cache_name, RFC 7914.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from mailq.smtp.credentials import Credentials
from mailq.status import Reply

SALT_BYTES: Final = 16
_COST, _BLOCK, _PARALLEL = 2**13, 8, 1
"""Of scrypt: 8 MB and some 20 ms a guess; it runs only where a failure is on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFailure:
    """A refusal on record.

    Attributes:
        host: Name of the server, lower case.
        user: Who wanted to log in.
        salt: Random, :data:`SALT_BYTES` long.
        digest: Of the password.
        reply: What the server said.
        noted_at: When.
    """

    host: str
    user: str
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    reply: Reply
    noted_at: datetime

    @classmethod
    def of(cls, credentials: Credentials, reply: Reply, *, host: str, salt: bytes, noted_at: datetime) -> "AuthFailure":
        """Return the record of a refusal."""
        digest = _digest(credentials, salt)
        return cls(host=host.lower(), user=credentials.user, salt=salt, digest=digest, reply=reply, noted_at=noted_at)

    def is_of(self, credentials: Credentials) -> bool:
        """Whether it was this password that was refused."""
        return hmac.compare_digest(self.digest, _digest(credentials, self.salt))


def _digest(credentials: Credentials, salt: bytes) -> bytes:
    return hashlib.scrypt(credentials.password.encode(), salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL)
