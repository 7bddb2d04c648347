"""A short run of the fuzz targets on random and on half-sensible bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CHECKS

replies = [b"250", b"250-", b"354 go", b"421 4.3.2 x", b"550", b" ", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"x" * 3000]
content = [b"Content-Type: multipart/mixed; boundary=a", b"Content-Transfer-Encoding: 8bit", b"--a", b"--a--"]
tokens = st.sampled_from(replies + content)
noise = st.one_of(st.binary(max_size=200), st.lists(tokens, max_size=60).map(b"".join))


@pytest.mark.parametrize("check", CHECKS)
def test_no_bytes_lead_to_anything_but_what_is_promised(check):
    @settings(deadline=None, max_examples=200)
    @given(noise)
    def run(data):
        check(data)

    run()


@pytest.mark.parametrize("check", CHECKS)
def test_an_endless_reply_is_bounded(check):
    check(b"\xff" + b"250-" + b"x" * 300_000)
    check(b"\xff" + b"250-x\r\n" * 2000)
