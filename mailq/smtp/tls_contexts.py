"""TLS contexts: one for everybody who asks for the same protocols and ciphers.

Making a context costs as much as a handshake, so none is made a connection. They let every certificate pass: the
handshake is to be completed at every level, and :mod:`mailq.smtp.tls_verify` judges afterwards.

Source: smtp-delivery P-02, P-03, P-17, P-26.
"""

import ssl
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from mailq.errors import SettingError
from mailq.security import TlsPolicy
from mailq.settings import Settings
from mailq.smtp.tls_words import GRADES, OUTDATED, VERSIONS, cipher_list, read_protocols

# Policies come from a table that people wrote; more combinations than this are not in use at a time.
MOST_CONTEXTS: Final = 64

_NUMBERS: Final = dict(
    zip(
        VERSIONS,
        (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
        strict=True,
    )
)

_Key = tuple[tuple[str, ...], str, tuple[str, ...]]


class Contexts:
    """The contexts in use; safe to use from any thread.

    Args:
        settings: tls_protocols, tls_ciphers and their mandatory variants hold where a policy names none.

    Raises:
        SettingError: One of those settings cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: OrderedDict[_Key, ssl.SSLContext] = OrderedDict()
        for protocols, ciphers in (
            (settings.tls_protocols, settings.tls_ciphers),
            (settings.tls_mandatory_protocols, settings.tls_mandatory_ciphers),
        ):
            self._get((protocols, ciphers, settings.tls_exclude_ciphers))

    def for_policy(self, policy: TlsPolicy) -> ssl.SSLContext:
        """Return the context of *policy*: what it does not name is that of its level. Source: P-17.

        Raises:
            SettingError: A word of the policy is not understood.
        """
        settings = self._settings
        required = policy.level.required
        protocols = settings.tls_mandatory_protocols if required else settings.tls_protocols
        ciphers = settings.tls_mandatory_ciphers if required else settings.tls_ciphers
        exclude = policy.exclude_ciphers or settings.tls_exclude_ciphers
        return self._get((policy.protocols or protocols, policy.ciphers or ciphers, exclude))

    def _get(self, key: _Key) -> ssl.SSLContext:
        with self._lock:
            context = self._made.get(key)
            if context is None:
                context = self._made[key] = new_context(*key)
                if len(self._made) > MOST_CONTEXTS:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return context


def new_context(protocols: Iterable[str], ciphers: str, exclude: Iterable[str] = ()) -> ssl.SSLContext:
    """Return a new client context that accepts any certificate and never renegotiates.

    Args:
        protocols: As in the setting tls_protocols.
        ciphers: Grade, or a list in OpenSSL's words.
        exclude: Ciphers that may not be used.

    Raises:
        SettingError: A word is not understood, or no cipher is left.
    """
    versions = read_protocols(protocols)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.set_ciphers(cipher_list(ciphers, exclude, versions))
    except ssl.SSLError as error:
        raise SettingError(
            f"TLS ciphers: no cipher is left of {ciphers!r}; expected {', '.join(GRADES)} or a list as in ciphers(1)"
        ) from error
    with warnings.catch_warnings():
        if versions.lowest in OUTDATED:
            # Whoever names TLS 1.0 or 1.1 in a setting knows that they are outdated.
            warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = _NUMBERS[versions.lowest]
        context.maximum_version = _NUMBERS[versions.highest]
    return context
