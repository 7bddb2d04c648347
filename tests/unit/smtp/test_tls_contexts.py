"""One context for everybody with the same wishes. Source: smtp-delivery P-02, P-03, P-17."""

import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailq.errors import SettingError
from mailq.security import TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.smtp import tls_contexts
from mailq.smtp.tls_contexts import MOST_CONTEXTS, Contexts

MAY = TlsPolicy(level=TlsLevel.MAY)
ENCRYPT = TlsPolicy(level=TlsLevel.ENCRYPT)
SECURE = TlsPolicy(level=TlsLevel.SECURE, match=("mx.test",))


def test_any_certificate_completes_the_handshake_and_none_is_renegotiated() -> None:
    """P-02, P-03, P-26."""
    context = Contexts(Settings()).for_policy(SECURE)
    assert ssl.CERT_NONE is context.verify_mode
    assert not context.check_hostname
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


def test_policies_with_equal_wishes_share_a_context() -> None:
    contexts = Contexts(Settings())
    assert contexts.for_policy(MAY) is contexts.for_policy(SECURE)
    assert contexts.for_policy(MAY) is contexts.for_policy(TlsPolicy(level=TlsLevel.MAY, ciphers="medium"))


def test_opportunistic_and_mandatory_tls_have_settings_of_their_own() -> None:
    """P-17."""
    contexts = Contexts(Settings(tls_protocols=("TLSv1.2",), tls_mandatory_protocols=("TLSv1.3",)))
    assert ssl.TLSVersion.TLSv1_2 == contexts.for_policy(MAY).maximum_version
    assert ssl.TLSVersion.TLSv1_3 == contexts.for_policy(ENCRYPT).minimum_version


def test_a_policys_own_words_come_before_the_settings() -> None:
    """P-11, P-17."""
    contexts = Contexts(Settings(tls_exclude_ciphers=("AES128",)))
    own = TlsPolicy(level=TlsLevel.MAY, protocols=("TLSv1.2",), ciphers="high", exclude_ciphers=("AES256",))
    context = contexts.for_policy(own)
    names = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    assert ssl.TLSVersion.TLSv1_2 == context.maximum_version
    assert [name for name in names if "AES128" in name]
    assert not [name for name in names if "AES256" in name]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tls_protocols": ("SSLv9",)},
        {"tls_mandatory_protocols": ("!TLSv1.2", "!TLSv1.3")},
        {"tls_ciphers": "best"},
        {"tls_mandatory_ciphers": "best"},
        {"tls_exclude_ciphers": ("!!",)},
    ],
)
def test_settings_that_are_not_understood_are_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        Contexts(Settings(**wrong))


def test_a_policy_that_is_not_understood_is_refused() -> None:
    with pytest.raises(SettingError):
        Contexts(Settings()).for_policy(TlsPolicy(level=TlsLevel.MAY, ciphers="best"))


def test_contexts_do_not_grow_without_end() -> None:
    contexts = Contexts(Settings())
    first = contexts.for_policy(MAY)
    ciphers = [cipher["name"] for cipher in first.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    policies = [
        TlsPolicy(level=TlsLevel.MAY, exclude_ciphers=(one, other)) for one in ciphers[:10] for other in ciphers[10:20]
    ]
    assert MOST_CONTEXTS < len(policies)
    for policy in policies:
        contexts.for_policy(policy)
    assert MOST_CONTEXTS == len(contexts._made)


def test_threads_that_ask_at_once_make_one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = Contexts(Settings())
    made = []

    def counting(*key: object) -> ssl.SSLContext:
        made.append(key)
        return real(*key)

    real = tls_contexts.new_context
    monkeypatch.setattr(tls_contexts, "new_context", counting)
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(contexts.for_policy, [TlsPolicy(level=TlsLevel.MAY, ciphers="high")] * 200))
    assert 1 == len(found)
    assert 1 == len(made)
