"""Who may look at Flower, and what it is told."""

import pytest

from mailq.errors import ConfigError
from mailq.settings import Settings
from mailq.settings_sources import shown_value
from mailq.worker.flower_web import FlowerPlace, check_flower, flower_options

REDIS = Settings(broker_url="redis://127.0.0.1/0", flower_password="secret")


def test_without_a_password_it_does_not_start_and_says_what_to_do():
    with pytest.raises(ConfigError, match=r"MAILQ_FLOWER_PASSWORD.*--no-login"):
        check_flower(Settings(broker_url="redis://127.0.0.1/0"), FlowerPlace())


def test_with_a_password_it_may_be_shown_anywhere():
    check_flower(REDIS, FlowerPlace(address="0.0.0.0"))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_one_may_do_without(address):
    check_flower(Settings(broker_url="redis://127.0.0.1/0"), FlowerPlace(address=address, login=False))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "", "mail.example.org"])
def test_elsewhere_nobody_may_do_without(address):
    with pytest.raises(ConfigError, match="loopback"):
        check_flower(REDIS, FlowerPlace(address=address, login=False))


def test_a_user_name_with_a_colon_could_never_log_in():
    with pytest.raises(ConfigError, match="colon"):
        check_flower(Settings(broker_url="redis://x", flower_user="a:b", flower_password="s"), FlowerPlace())


def test_a_broker_of_one_process_has_nothing_to_look_at():
    with pytest.raises(ConfigError, match="memory"):
        check_flower(Settings(flower_password="secret"), FlowerPlace())


def test_nothing_can_be_done_from_it_and_the_password_is_asked_for():
    options = flower_options(REDIS, FlowerPlace())
    assert options["read_only"]
    assert ["mailq:secret"] == options["basic_auth"]
    assert "127.0.0.1" == options["address"]
    assert not options["persistent"]
    assert [] == flower_options(REDIS, FlowerPlace(login=False))["basic_auth"]


def test_every_option_it_is_given_exists():
    from flower import options  # noqa: F401, PLC0415 - importing it defines the options
    from tornado.options import options as known  # noqa: PLC0415 - tornado comes with flower

    assert [] == [name for name in flower_options(REDIS, FlowerPlace()) if name not in known]


def test_the_password_is_not_shown_whatever_it_looks_like():
    assert "***" == shown_value("flower_password", "a://b@c")
    assert "" == shown_value("flower_password", "")
    assert "a://b" not in repr(Settings(flower_password="a://b"))
