"""Which name servers are asked: the listed ones, or those that the system's file names now."""

import os
from pathlib import Path

import pytest

from mailq.errors import SettingError
from mailq.routing.name_servers import NameServers


def asked(servers: NameServers) -> list[str]:
    return [s if isinstance(s, str) else f"{s.address} {s.port}" for s in servers.stub().nameservers]


def listed(*texts: str) -> NameServers:
    return NameServers(texts, timeout_seconds=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "resolv.conf"


def configured(file: Path) -> NameServers:
    return NameServers((), timeout_seconds=1, configuration=file)


def write(file: Path, text: str) -> None:
    """Write *file* so that its time differs, however coarse the file system's clock is."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(0, before + 10**9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", "192.0.2.53 53"),
        ("192.0.2.53:5353", "192.0.2.53 5353"),
        ("2001:db8::53", "2001:db8::53 53"),
        ("[2001:db8::53]", "2001:db8::53 53"),
        ("[2001:db8::53]:5353", "2001:db8::53 5353"),
    ],
)
def test_a_name_server_is_an_address_with_or_without_port(text: str, expected: str):
    assert [expected] == asked(listed(text))


@pytest.mark.parametrize(
    "text",
    ["ns.test", "192.0.2.53:smtp", "192.0.2.53:0", "192.0.2.53:65536", "192.0.2.53:x", "[2001:db8::53", "[::1]53:", ""],
)
def test_a_bad_name_server_is_shown(text: str):
    with pytest.raises(SettingError, match="is not address, address:port or"):
        listed(text)


def test_without_a_list_the_systems_file_is_read(file: Path):
    write(file, "search test\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n")
    assert ["192.0.2.1", "2001:db8::1"] == asked(configured(file))


@pytest.mark.parametrize("text", [None, "", "search test\n"])
def test_without_a_configuration_file_the_local_name_server_is_asked(file: Path, text: str | None):
    """resolv.conf(5)."""
    if text is not None:
        write(file, text)
    assert ["127.0.0.1 53"] == asked(configured(file))


def test_a_file_that_names_no_address_is_refused_at_the_start(file: Path):
    write(file, "nameserver ns.test\n")
    with pytest.raises(SettingError, match="set nameservers"):
        configured(file)


def test_a_changed_file_is_read_again_and_nothing_old_is_remembered(file: Path):
    write(file, "nameserver 192.0.2.1\n")
    servers = configured(file)
    before = servers.stub()
    assert before is servers.stub()
    write(file, "nameserver 192.0.2.2\n")
    assert ["192.0.2.2"] == asked(servers)
    assert before.cache is not servers.stub().cache
    assert servers.stub() is servers.stub()


def test_a_file_that_appears_later_is_read(file: Path):
    servers = configured(file)
    write(file, "nameserver 192.0.2.1\n")
    assert ["192.0.2.1"] == asked(servers)


@pytest.mark.parametrize("text", ["nameserver ns.test\n", "# being written\n", None])
def test_a_file_that_becomes_unusable_leaves_the_name_servers_as_they_are(
    file: Path, text: str | None, caplog: pytest.LogCaptureFixture
):
    write(file, "nameserver 192.0.2.1\n")
    servers = configured(file)
    if text is None:
        file.unlink()
    else:
        write(file, text)
    assert ["192.0.2.1"] == asked(servers)
    assert ["192.0.2.1"] == asked(servers)
    (warning,) = caplog.messages
    assert warning.startswith("keeping the name servers in use: ")
    write(file, "nameserver 192.0.2.2\n")
    assert ["192.0.2.2"] == asked(servers)


def test_the_systems_file_does_not_matter_where_name_servers_are_listed(file: Path):
    write(file, "nameserver 192.0.2.1\n")
    servers = NameServers(["192.0.2.53"], timeout_seconds=1, configuration=file)
    write(file, "nameserver 192.0.2.2\n")
    assert ["192.0.2.53 53"] == asked(servers)


def test_one_server_gets_at_most_the_time_of_the_question():
    assert 1 == listed("192.0.2.53").stub().timeout
    assert 2 == NameServers(["192.0.2.53"], timeout_seconds=60).stub().timeout
