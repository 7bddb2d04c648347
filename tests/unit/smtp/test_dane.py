"""TLSA records and the certificates they mean. Source: RFC 6698, RFC 7671, RFC 7672, smtp-delivery P-05 to P-07."""

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from mailq.security import TlsaRecord
from mailq.smtp.certificate import Certificate
from mailq.smtp.dane import end_entity_match, matches, strongest, trust_anchors, usable_records
from tests.fakes.certificate import Issued, make

ROOT = Issued.authority("Root")
MIDDLE = ROOT.intermediate("Middle")
LEAF = MIDDLE.issue("mx.test")
OTHER = make("mx.test")
FULL = [Certificate(one) for one in (LEAF.der, MIDDLE.der, ROOT.der)]
HOW: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: lambda data: hashlib.sha256(data).digest(),
    2: lambda data: hashlib.sha512(data).digest(),
}


def record(usage: int, selector: int, matching_type: int, issued: Issued) -> TlsaRecord:
    """Return the record that *issued* matches."""
    data = issued.der if selector == 0 else issued.key_info
    return TlsaRecord(usage, selector, matching_type, HOW[matching_type](data))


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
def test_each_selector_and_matching_type_means_its_own_bytes(usage: int, selector: int, matching_type: int) -> None:
    """P-06."""
    ours = record(usage, selector, matching_type, LEAF)
    assert (ours,) == usable_records([ours])
    assert matches(ours, FULL[0])
    assert not [one for one in (*FULL[1:], Certificate(OTHER.der)) if matches(ours, one)]


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
def test_usage_3_is_about_the_servers_own_certificate_alone(selector: int, matching_type: int) -> None:
    """P-06. Source: RFC 7671 §5.1."""
    assert end_entity_match([record(3, selector, matching_type, LEAF)], FULL) is not None
    assert end_entity_match([record(3, selector, matching_type, MIDDLE)], FULL) is None
    assert end_entity_match([record(3, selector, matching_type, OTHER)], FULL) is None
    assert end_entity_match([record(2, selector, matching_type, LEAF)], FULL) is None
    assert end_entity_match([record(3, selector, matching_type, LEAF)], []) is None


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
@pytest.mark.parametrize(("issued", "place"), [(MIDDLE, 1), (ROOT, 2)])
def test_usage_2_names_an_authority_among_what_was_sent(
    selector: int, matching_type: int, issued: Issued, place: int
) -> None:
    """P-06. Source: RFC 7671 §5.2."""
    found = trust_anchors([record(2, selector, matching_type, issued)], FULL)
    assert [place] == [anchor.place for anchor in found]


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [1, 2])
def test_an_authority_known_by_digest_must_have_been_sent(selector: int, matching_type: int) -> None:
    """Source: RFC 7671 §5.2."""
    ours = record(2, selector, matching_type, ROOT)
    assert [] == trust_anchors([ours], FULL[:2])
    assert [] == trust_anchors([record(2, selector, matching_type, LEAF)], FULL)


def test_an_authority_given_in_full_need_not_be_sent() -> None:
    """Source: RFC 7671 §5.2.2."""
    (anchor,) = trust_anchors([record(2, 0, 0, ROOT)], FULL[:2])
    assert anchor.place is None
    assert ROOT.der == anchor.certificate.der


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["ec", "rsa", "ed25519"],
)
def test_a_bare_key_stands_behind_what_it_has_signed(key: object) -> None:
    """Source: RFC 7671 §5.2.3."""
    root = Issued.authority("Keyed", key=key)
    leaf = root.issue("mx.test")
    ours = record(2, 1, 0, root)
    assert [0] == [anchor.place for anchor in trust_anchors([ours], [Certificate(leaf.der)])]
    assert [] == trust_anchors([ours], [Certificate(LEAF.der), Certificate(OTHER.der)])
    assert [] == trust_anchors([record(2, 1, 0, OTHER)], [Certificate(leaf.der)])


@pytest.mark.parametrize(
    ("usage", "selector", "matching_type", "data"),
    [
        (0, 0, 1, bytes(32)),
        (1, 1, 1, bytes(32)),
        (4, 1, 1, bytes(32)),
        (255, 1, 1, bytes(32)),
        (3, 2, 1, bytes(32)),
        (3, 255, 1, bytes(32)),
        (3, 1, 3, bytes(32)),
        (3, 1, 255, bytes(32)),
        (3, 1, 1, b""),
        (3, 1, 1, bytes(31)),
        (3, 1, 1, bytes(33)),
        (3, 1, 1, bytes(64)),
        (3, 1, 2, bytes(32)),
        (2, 0, 2, bytes(63)),
        (3, 0, 0, b""),
        (3, 0, 0, b"garbage"),
        (2, 0, 0, LEAF.der[:-1]),
        (3, 1, 0, b""),
        (3, 1, 0, b"garbage"),
        (2, 1, 0, LEAF.key_info[:-1]),
        (3, 1, 0, LEAF.der),
        (3, 0, 0, LEAF.key_info),
    ],
    # Keys are new in each process, and names of tests must not be.
    ids=lambda value: "data" if isinstance(value, bytes) else None,
)
def test_a_record_that_means_nothing_is_unusable(usage: int, selector: int, matching_type: int, data: bytes) -> None:
    """P-06. Source: RFC 7671 §10.1, RFC 7672 §3.1.3."""
    assert () == usable_records([TlsaRecord(usage, selector, matching_type, data)])


def test_repeated_records_count_once() -> None:
    ours = record(3, 1, 1, LEAF)
    assert (ours,) == usable_records([ours, ours])


@pytest.mark.parametrize(
    ("given_records", "left"),
    [
        (["3 1 1"], ["3 1 1"]),
        (["3 1 1", "3 1 2"], ["3 1 2"]),
        (["3 1 2", "3 1 1", "3 1 1"], ["3 1 2"]),
        (["3 1 0", "3 1 1"], ["3 1 0", "3 1 1"]),
        (["3 1 0", "3 1 1", "3 1 2"], ["3 1 0", "3 1 2"]),
        (["3 0 1", "3 1 2"], ["3 0 1", "3 1 2"]),
        (["2 1 1", "3 1 2"], ["2 1 1", "3 1 2"]),
        ([], []),
    ],
)
def test_the_strongest_digest_of_a_usage_and_selector_counts_beside_data_in_full(
    given_records: list[str], left: list[str]
) -> None:
    """Source: RFC 7671 §9."""
    records = [TlsaRecord(*map(int, text.split()), b"") for text in given_records]
    assert left == [" ".join(str(one).split()[:3]) for one in strongest(records)]


def test_a_match_of_a_weaker_digest_does_not_count_beside_a_stronger_one() -> None:
    """Source: RFC 7671 §9."""
    weak, strong = record(3, 1, 1, LEAF), record(3, 1, 2, OTHER)
    assert weak == end_entity_match([weak], FULL)
    assert end_entity_match([weak, strong], FULL) is None
    assert [] == trust_anchors([record(2, 0, 1, MIDDLE), record(2, 0, 2, OTHER)], FULL)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80), st.binary(max_size=200))
def test_no_record_and_no_certificate_is_bad_enough_to_raise(
    usage: int, selector: int, matching_type: int, data: bytes, der: bytes
) -> None:
    records = usable_records([TlsaRecord(usage, selector, matching_type, data)])
    chain = [Certificate(der), FULL[1]]
    assert end_entity_match(records, chain) is None or data in HOW[matching_type](der)
    assert isinstance(trust_anchors(records, chain), list)
