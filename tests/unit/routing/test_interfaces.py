"""Which addresses are this host's own."""

import socket
from pathlib import Path

import pytest

from mailq.errors import SettingError
from mailq.routing.interfaces import system_addresses
from mailq.settings import Settings

IPV4_TABLE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.0
           /24 link UNICAST
"""
IPV6_TABLE = """\
20010db8000000000000000000000002 04 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """Linux's tables of a host with one interface besides loopback."""
    ipv4, ipv6 = tmp_path / "fib_trie", tmp_path / "if_inet6"
    ipv4.write_text(IPV4_TABLE)
    ipv6.write_text(IPV6_TABLE)
    return ipv4, ipv6


def own(tables: tuple[Path, Path], settings: Settings) -> set[str]:
    return set(system_addresses(settings, ipv4_table=tables[0], ipv6_table=tables[1]))


def test_all_means_every_address_of_every_interface(tables: tuple[Path, Path]):
    """A-40."""
    everything = {"127.0.0.1", "192.0.2.2", "2001:db8::2", "::1"}
    assert everything == own(tables, Settings())
    assert everything == own(tables, Settings(inet_protocols=("all",)))


def test_addresses_of_a_disabled_family_are_not_own(tables: tuple[Path, Path]):
    """A-40."""
    settings = Settings(inet_protocols=("ipv6",), proxy_interfaces=("198.51.100.1",))
    assert {"2001:db8::2", "::1"} == own(tables, settings)


def test_interfaces_can_be_listed_and_proxies_are_added(tables: tuple[Path, Path]):
    """A-40, scenario 1.24."""
    settings = Settings(
        inet_interfaces=("loopback-only", "2001:DB8:0::9"), proxy_interfaces=("198.51.100.1", "2001:db8::10")
    )
    assert {"127.0.0.1", "::1", "2001:db8::9", "198.51.100.1", "2001:db8::10"} == own(tables, settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings(inet_interfaces=("eth0",)), "inet_interfaces: 'eth0' is not all, loopback-only or an IP address"),
        (Settings(proxy_interfaces=("all",)), "proxy_interfaces: 'all' is not an IP address"),
    ],
)
def test_anything_else_is_an_error_that_shows_it(settings: Settings, text: str):
    with pytest.raises(SettingError, match=text):
        system_addresses(settings)


def test_without_the_tables_the_hosts_name_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", ("192.0.2.7", 0)), (0, 0, 0, "", ("x%y", 0))])
    missing = (tmp_path / "none4", tmp_path / "none6")
    assert {"127.0.0.1", "::1", "192.0.2.7"} == own(missing, Settings())


def test_without_tables_and_name_only_loopback_is_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    missing = (tmp_path / "none4", tmp_path / "none6")
    assert {"127.0.0.1", "::1"} == own(missing, Settings())


def test_this_machine_knows_its_loopback_address():
    assert "127.0.0.1" in system_addresses(Settings())
