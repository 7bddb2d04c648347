"""A message of Django's is written as Django writes it."""

from email.policy import compat32

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.django_project import set_up

set_up()

from mailq.contrib.django.messages import PlainHeaders, submission_of  # noqa: E402 - needs the settings


@given(
    st.sampled_from(["Subject", "To", "X-A-Name-That-Is-Longer-Than-Others"]),
    st.text(st.one_of(st.sampled_from(" ,;<>@=?\tabc"), st.characters(exclude_categories=["Cs", "Cc"])), max_size=90),
)
def test_a_header_is_folded_as_python_folds_it(name: str, value: str) -> None:
    assert compat32.fold_binary(name, value) == PlainHeaders().fold_binary(name, value)


@pytest.mark.parametrize("subject", ["Your order", "Grüße", "long " * 40])
@pytest.mark.parametrize("body", ["Thank you.\n", "From here on.\r\n.\r\n", "Grüße\n", "x" * 2000])
def test_a_message_is_written_as_django_writes_it(subject: str, body: str) -> None:
    plain = EmailMessage(
        subject, body, "Ann <ann@home.test>", ["bob@far.test"], headers={"Message-ID": "<1@home.test>"}
    )
    plain.extra_headers["Date"] = "Mon, 06 Jul 2026 09:00:00 +0000"
    assert plain.message().as_bytes() == submission_of(plain, {}, "").message
    both = EmailMultiAlternatives(subject, body, "ann@home.test", ["bob@far.test"], headers=plain.extra_headers)
    both.attach_alternative("<p>Hello</p>", "text/html")
    both.attach("order.txt", "one line\n", "text/plain")
    made = both.message()
    both.message = lambda: made  # its boundaries are drawn anew each time
    assert made.as_bytes() == submission_of(both, {}, "").message
