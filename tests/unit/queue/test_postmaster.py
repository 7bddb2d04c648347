"""Who on our own side is told of what."""

import pytest

from mailq.errors import SettingError
from mailq.queue.postmaster import Postmaster, is_double_bounce
from mailq.settings import Settings
from mailq.settings_sources import load


def test_addresses_without_a_domain_are_at_this_host() -> None:
    settings = Settings(myhostname="Mail.Home.test", delay_notice_recipient="late@Admin.test")
    postmaster = Postmaster.of(settings)
    assert ("double-bounce@mail.home.test", "postmaster@mail.home.test", "late@admin.test") == (
        postmaster.sender,
        postmaster.bounces,
        postmaster.delays,
    )


def test_by_default_nobody_is_told_of_anything_that_is_there() -> None:
    postmaster = Postmaster.of(Settings(myhostname="home.test"))
    assert not postmaster.wants("bounce", "2bounce", "delay", "protocol", "data")


def test_an_address_that_is_none_is_refused_by_the_name_of_its_setting() -> None:
    with pytest.raises(SettingError, match="error_notice_recipient"):
        Postmaster.of(Settings(myhostname="home.test", error_notice_recipient="post master"))


@pytest.mark.parametrize("address", ["double-bounce@home.test", "Double-Bounce@home.test"])
def test_the_double_bounce_address_is_known_in_any_case(address: str) -> None:
    settings = Settings(myhostname="home.test")
    assert is_double_bounce(address, settings)
    assert Postmaster.of(settings).is_own(address)


@pytest.mark.parametrize("address", ["", "ann@home.test", "double-bounce@far.test"])
def test_other_addresses_are_not_the_double_bounce_address(address: str) -> None:
    settings = Settings(myhostname="home.test")
    assert not is_double_bounce(address, settings)
    assert not Postmaster.of(settings).is_own(address)


@pytest.mark.parametrize(
    ("sender", "classes", "told"),
    [
        ("ann@home.test", {"protocol"}, True),
        ("ann@home.test", {"protocol", "data"}, True),
        ("ann@home.test", {"data"}, False),
        ("ann@home.test", set(), False),
        ("", {"protocol"}, False),
        ("double-bounce@home.test", {"protocol"}, False),
    ],
)
def test_a_transcript_is_wanted_by_class_and_for_mail_that_is_no_report(
    sender: str, classes: set[str], *, told: bool
) -> None:
    """Source: smtp-delivery C-70."""
    postmaster = Postmaster.of(Settings(myhostname="home.test", notify_classes=("protocol",)))
    assert told == postmaster.wants_transcript(classes, sender=sender)


def test_the_postmaster_may_be_told_of_nothing_and_not_of_what_is_unknown() -> None:
    assert () == load(environ={}, mapping={"notify_classes": ""}).notify_classes
    with pytest.raises(SettingError, match="notify_classes"):
        load(environ={}, mapping={"notify_classes": "bounces"})
