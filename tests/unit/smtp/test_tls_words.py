"""The words for protocol versions and ciphers. Source: smtp-delivery P-17."""

import ssl

import pytest

from mailq.errors import SettingError
from mailq.smtp.tls_contexts import new_context
from mailq.smtp.tls_words import VersionRange, cipher_list, read_protocols

MODERN = VersionRange("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(
    ("words", "lowest", "highest"),
    [
        ("", "TLSv1.2", "TLSv1.3"),
        (">=TLSv1.2", "TLSv1.2", "TLSv1.3"),
        (">=TLSv1", "TLSv1", "TLSv1.3"),
        (">=tlsv1.1", "TLSv1.1", "TLSv1.3"),
        (">=SSLv3", "TLSv1", "TLSv1.3"),
        (">=TLSv1.1 <=TLSv1.2", "TLSv1.1", "TLSv1.2"),
        ("<=TLSv1.2", "TLSv1.2", "TLSv1.2"),
        ("!SSLv2, !SSLv3", "TLSv1.2", "TLSv1.3"),
        ("!SSLv2, !TLSv1", "TLSv1.2", "TLSv1.3"),
        ("!TLSv1.3", "TLSv1.2", "TLSv1.2"),
        ("TLSv1.2 TLSv1.3", "TLSv1.2", "TLSv1.3"),
        ("TLSv1.3:TLSv1.2", "TLSv1.2", "TLSv1.3"),
        ("TLSv1", "TLSv1", "TLSv1"),
        ("TLSv1 SSLv3", "TLSv1", "TLSv1"),
        ("=TLSv1.3", "TLSv1.3", "TLSv1.3"),
        ("TLSv1.2 TLSv1.3 !TLSv1.3", "TLSv1.2", "TLSv1.2"),
    ],
)
def test_protocols_are_a_range_a_list_or_what_exclusions_leave(words: str, lowest: str, highest: str) -> None:
    """P-17."""
    assert VersionRange(lowest, highest) == read_protocols([words])
    assert VersionRange(lowest, highest) == read_protocols(words.split())


@pytest.mark.parametrize("words", ["TLSv1.4", "TLS1.2", ">>TLSv1", "!", "yes", ">=", "~TLSv1.2"])
def test_an_unknown_protocol_is_refused_with_those_that_are_known(words: str) -> None:
    with pytest.raises(SettingError, match=r"expected TLSv1, TLSv1\.1, TLSv1\.2, TLSv1\.3"):
        read_protocols([words])


@pytest.mark.parametrize("words", ["SSLv3", "!TLSv1.2 !TLSv1.3", "<=TLSv1.1", ">=TLSv1.3 <=TLSv1.2"])
def test_protocols_of_which_nothing_is_left_are_refused(words: str) -> None:
    with pytest.raises(SettingError, match="leaves none"):
        read_protocols([words])


@pytest.mark.parametrize("words", ["TLSv1.1 TLSv1.3", ">=TLSv1 !TLSv1.2", "TLSv1 TLSv1.2 TLSv1.3"])
def test_a_hole_in_the_row_of_protocols_is_refused(words: str) -> None:
    """OpenSSL's client would use only the part below the hole: the weaker one."""
    with pytest.raises(SettingError, match="without a hole"):
        read_protocols([words])


@pytest.mark.parametrize(
    ("grade", "versions", "ending"),
    [
        ("high", MODERN, "@SECLEVEL=2"),
        ("medium", MODERN, "@SECLEVEL=1"),
        ("LOW", MODERN, "@SECLEVEL=1"),
        ("export", MODERN, "@SECLEVEL=1"),
        ("null", MODERN, "@SECLEVEL=0"),
        ("high", VersionRange("TLSv1", "TLSv1.3"), "@SECLEVEL=0"),
        ("AES128-SHA", MODERN, "@SECLEVEL=1"),
        ("AES128-SHA:@SECLEVEL=2", MODERN, "@SECLEVEL=2"),
    ],
)
def test_the_least_strength_follows_from_what_was_asked_for(grade: str, versions: VersionRange, ending: str) -> None:
    listed = cipher_list(grade, (), versions)
    assert listed.endswith(ending)
    assert 1 == listed.count("@SECLEVEL")


def names_of(context: ssl.SSLContext) -> set[str]:
    return {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}


def test_each_grade_contains_the_stronger_ones_and_none_an_anonymous_cipher() -> None:
    """P-17."""
    high, medium = (names_of(new_context((), grade)) for grade in ("high", "medium"))
    assert high
    assert high <= medium
    assert medium == names_of(new_context((), "export"))
    assert not [name for name in medium if name.startswith(("ADH", "AECDH", "NULL")) or "-NULL-" in name]


def test_null_is_without_encryption() -> None:
    found = names_of(new_context((), "null"))
    assert found
    assert all("NULL" in name for name in found)


def test_ciphers_can_be_excluded_by_name_or_part() -> None:
    """P-17."""
    names = names_of(new_context((), "high", ("kRSA, AES128", "ECDHE-RSA-CHACHA20-POLY1305")))
    assert names
    assert not [name for name in names if "AES128" in name or "ECDHE-RSA-CHACHA20-POLY1305" == name]
    assert "AES256-SHA" not in names


@pytest.mark.parametrize("words", ["strong", "nonsense:words"])
def test_ciphers_of_which_none_is_known_are_refused_with_the_grades(words: str) -> None:
    with pytest.raises(SettingError, match="expected high, medium, low, export, null or a list"):
        new_context((), words)


def test_excluding_every_cipher_is_refused() -> None:
    with pytest.raises(SettingError, match="no cipher is left"):
        new_context(("TLSv1.2",), "AES128-SHA", ("AES",))


@pytest.mark.parametrize("word", ["!RC4", "a b!", "@STRENGTH", "DES;"])
def test_a_word_that_is_no_cipher_name_cannot_be_excluded(word: str) -> None:
    with pytest.raises(SettingError, match="ciphers to exclude"):
        cipher_list("medium", (word,), MODERN)


@pytest.mark.parametrize(
    ("protocols", "lowest", "highest"),
    [
        (("TLSv1",), ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1),
        ((">=TLSv1.1", "<=TLSv1.2"), ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2),
        ((), ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
    ],
)
def test_a_context_speaks_the_versions_asked_for(
    protocols: tuple[str, ...], lowest: ssl.TLSVersion, highest: ssl.TLSVersion
) -> None:
    context = new_context(protocols, "medium")
    assert lowest == context.minimum_version
    assert highest == context.maximum_version
