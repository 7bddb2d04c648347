"""Settings: where they come from, which source wins, and what a wrong one is answered with."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from mailq.errors import SettingError
from mailq.settings import Settings
from mailq.settings_sources import default_database_url, describe, load, load_with_sources, mask_url

_NO_DATABASE = {"MAILQ_DATABASE_URL": "sqlite:////nowhere/queue.db"}


def _load(tmp_path: Path, toml: str = "", **environ: str) -> Settings:
    path = tmp_path / "mailq.toml"
    path.write_text(toml, encoding="utf-8")
    return load(environ={**_NO_DATABASE, **environ}, toml_path=path)


def test_without_any_source_every_setting_has_its_default() -> None:
    expected = Settings(database_url="sqlite:////nowhere/queue.db")

    assert expected == load(environ=_NO_DATABASE)


def test_the_mapping_wins_over_the_environment_and_the_environment_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mailq.toml"
    path.write_text('relayhost = "[file]"\ntcp_port = "2525"\nmyhostname = "file.example"\n', encoding="utf-8")
    environ = {**_NO_DATABASE, "MAILQ_RELAYHOST": "[environment]", "MAILQ_TCP_PORT": "2626", "MAILQ_CONFIG": str(path)}

    loaded = load_with_sources(environ=environ, mapping={"RELAYHOST": "[mapping]"})

    assert loaded.settings.relayhost == "[mapping]"
    assert loaded.settings.tcp_port == "2626"
    assert loaded.settings.myhostname == "file.example"
    assert loaded.sources == {
        "database_url": "environment MAILQ_DATABASE_URL",
        "relayhost": "the application's 'RELAYHOST'",
        "tcp_port": "environment MAILQ_TCP_PORT",
        "myhostname": f"{path}:3",
    }


@pytest.mark.parametrize("key", ["relayhost", "RELAYHOST", "MAILQ_RELAYHOST", "mailq_relayhost"])
def test_a_mapping_may_spell_names_as_its_framework_does(key: str) -> None:
    assert load(environ=_NO_DATABASE, mapping={key: "[relay]"}).relayhost == "[relay]"


def test_a_mapping_may_hold_native_values() -> None:
    settings = load(
        environ=_NO_DATABASE,
        mapping={"lease_time": timedelta(minutes=2), "soft_bounce": True, "fallback_relay": ["[a]", "[b]"]},
    )

    assert settings.lease_time == timedelta(minutes=2)
    assert settings.soft_bounce
    assert settings.fallback_relay == ("[a]", "[b]")


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (timedelta(seconds=90), "90"),
        (timedelta(seconds=0.5), "0.5"),
        (timedelta(seconds=0.2), "200ms"),
        (timedelta(seconds=4000), "4000s"),
        (timedelta(minutes=5), "5m"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(minutes=90), "1h 30m"),
        (timedelta(hours=36), "1.5d"),
        (timedelta(days=14), "2w"),
    ],
)
def test_a_duration_is_seconds_or_has_units(expected: timedelta, text: str, tmp_path: Path) -> None:
    assert _load(tmp_path, MAILQ_REPORT_WAIT=text).report_wait == expected


@pytest.mark.parametrize("text", ["5x", "-1", "m5", "1h30", "5m5", "nan", "inf", "five", "1e99", "1 2", "-5m"])
def test_text_that_is_no_duration_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"'report_wait' \(environment MAILQ_REPORT_WAIT\) must be a duration such"):
        _load(tmp_path, MAILQ_REPORT_WAIT=text)


@pytest.mark.parametrize(
    ("expected", "text"), [(0, "0"), (10_240_000, "10240000"), (10_000_000, "10MB"), (10_485_760, "10 MiB"), (5, "5b")]
)
def test_a_size_is_bytes_or_has_a_unit(expected: int, text: str, tmp_path: Path) -> None:
    assert expected == _load(tmp_path, MAILQ_MESSAGE_SIZE_LIMIT_BYTES=text).message_size_limit_bytes


@pytest.mark.parametrize(
    ("expected", "text"), [(True, "yes"), (True, "TRUE"), (True, "1"), (False, "no"), (False, "off"), (False, "0")]
)
def test_a_switch_is_yes_or_no(expected: bool, text: str, tmp_path: Path) -> None:  # noqa: FBT001 - a table's column
    assert expected == _load(tmp_path, MAILQ_SOFT_BOUNCE=text).soft_bounce


@pytest.mark.parametrize("text", ["[a] [b]", "[a],[b]", " [a] , [b] "])
def test_a_list_is_separated_by_commas_or_spaces(text: str, tmp_path: Path) -> None:
    assert _load(tmp_path, MAILQ_FALLBACK_RELAY=text).fallback_relay == ("[a]", "[b]")


@pytest.mark.parametrize(
    ("said", "environ"),
    [
        ("unknown setting 'relayhosts' (environment MAILQ_RELAYHOSTS); did you mean 'relayhost'?", "RELAYHOSTS=x"),
        ("unknown setting 'zzz' (environment MAILQ_ZZZ); see 'mailq doctor' for all settings", "ZZZ=x"),
        ("setting 'lease_time' (environment MAILQ_LEASE_TIME) is empty: give it a value, or remove it", "LEASE_TIME="),
        ("'network' (environment MAILQ_NETWORK) must be one of internet, loopback, not 'lan'", "NETWORK=lan"),
        ("'inet_protocols' (environment MAILQ_INET_PROTOCOLS) must name at least one of", "INET_PROTOCOLS="),
        (
            "'inet_protocols' (environment MAILQ_INET_PROTOCOLS) must be one of all, ipv4, ipv6, not 'ipx'",
            "INET_PROTOCOLS=ipv4 ipx",
        ),
        ("must be yes or no, not 'maybe'", "SOFT_BOUNCE=maybe"),
        ("must be a whole number, not '1.5'", "MX_SESSION_LIMIT=1.5"),
        ("must be at least 0, not -1", "MX_SESSION_LIMIT=-1"),
        ("must be at least 1, not 0", "WORKER_CONCURRENCY=0"),
        ("must be at least 0 and at most 1, not 2", "BACKOFF_JITTER=2"),
        ("must be a number, not 'nan'", "BACKOFF_JITTER=nan"),
        ("must be a size such as 10240000, 10MB or 10MiB, not '10 boxes'", "BOUNCE_SIZE_LIMIT_BYTES=10 boxes"),
        ("must be one line of printable text", "MYHOSTNAME=a\nb"),
        ("'database_url' (environment MAILQ_DATABASE_URL) must be a URL that begins with", "DATABASE_URL=/var/queue"),
        ("not 'mysql://u:***@h/d'", "DATABASE_URL=mysql://u:secret@h/d"),
        (
            "'broker_url' (environment MAILQ_BROKER_URL) must be a URL that begins with memory://",
            "BROKER_URL=kafka://h",
        ),
        (
            "(environment MAILQ_MINIMAL_BACKOFF_TIME) is 7200s, more than 'maximal_backoff_time' (default) with 4000s",
            "MINIMAL_BACKOFF_TIME=2h",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_source_and_what_is_expected(said: str, environ: str, tmp_path: Path) -> None:
    name, _, value = environ.partition("=")

    with pytest.raises(SettingError) as caught:
        _load(tmp_path, **{f"MAILQ_{name}": value})

    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wrong_setting_in_the_file_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"mailq\.toml:3\); did you mean 'relayhost'\?"):
        _load(tmp_path, "# ours\n\nrelay_host = '[a]'\n")
    with pytest.raises(SettingError, match=r"setting 'lease_time' \(.*mailq\.toml:2\) must be a duration"):
        _load(tmp_path, "soft_bounce = true\nlease_time = [1]\n")


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"configuration file .*missing\.toml: No such file"):
        load(environ={**_NO_DATABASE, "MAILQ_CONFIG": str(tmp_path / "missing.toml")})
    with pytest.raises(SettingError, match=r"mailq\.toml is not TOML: .*line 1"):
        _load(tmp_path, "relayhost = [a]")


def test_a_file_may_hold_lists_numbers_and_switches(tmp_path: Path) -> None:
    settings = _load(
        tmp_path, 'fallback_relay = ["[a]", "[b]"]\nlease_time = 90\nsoft_bounce = true\nmx_address_limit = 3\n'
    )

    assert settings.fallback_relay == ("[a]", "[b]")
    assert settings.lease_time == timedelta(seconds=90)
    assert settings.soft_bounce
    assert settings.mx_address_limit == 3


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:p@h/d\n", encoding="utf-8")

    assert load(environ={"MAILQ_DATABASE_URL_FILE": str(secret)}).database_url == "postgresql://u:p@h/d"
    with pytest.raises(SettingError, match=r"MAILQ_DATABASE_URL_FILE: the file .* cannot be read"):
        load(environ={"MAILQ_DATABASE_URL_FILE": str(tmp_path / "missing")})
    with pytest.raises(SettingError, match="unknown setting 'relayhost_file'"):
        load(environ={**_NO_DATABASE, "MAILQ_RELAYHOST_FILE": str(secret)})


@pytest.mark.parametrize(
    "variable", ["MAILQ_SERVICE_HOST", "MAILQ_PORT", "MAILQ_PORT_25_TCP_ADDR", "MAILQ_TEST_X", "PATH"]
)
def test_variables_that_others_set_are_not_settings(variable: str) -> None:
    assert load(environ={**_NO_DATABASE, variable: "tcp://10.0.0.1:25"}) == load(environ=_NO_DATABASE)


def test_the_default_database_is_a_file_in_a_directory_of_ones_own(tmp_path: Path) -> None:
    settings = load(environ={"XDG_DATA_HOME": str(tmp_path / "data")})

    assert f"sqlite:///{tmp_path}/data/mailq/queue.sqlite3" == settings.database_url
    assert (tmp_path / "data" / "mailq").stat().st_mode & 0o777 == 0o700


def test_the_default_database_falls_back_to_the_home_directory(tmp_path: Path) -> None:
    expected = f"sqlite:///{tmp_path}/.local/share/mailq/queue.sqlite3"

    assert expected == default_database_url({"HOME": str(tmp_path), "XDG_DATA_HOME": "relative"})


def test_a_data_directory_that_cannot_be_made_says_which_setting_helps(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")

    with pytest.raises(SettingError, match=r"cannot be created: .*; set MAILQ_DATABASE_URL"):
        load(environ={"XDG_DATA_HOME": str(blocked)})


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("postgresql://ann:***@db/mail", "postgresql://ann:secret@db/mail"),
        ("postgresql://ann:***@db/mail?password=***", "postgresql://ann:x@db/mail?password=secret"),
        ("redis://:***@db:6379/0", "redis://:secret@db:6379/0"),
        ("sqlite:////var/lib/queue.db", "sqlite:////var/lib/queue.db"),
        ("memory://", "memory://"),
        ("***", "secret"),
        ("postgresql://ann:***@db/mail", "postgresql://ann:se/cr@et@db/mail"),
        ("***", "postgresql://ann:secret?@db/mail"),
        ("", ""),
    ],
)
def test_passwords_in_urls_are_masked(expected: str, url: str) -> None:
    assert expected == mask_url(url)


def test_every_setting_is_described_with_value_source_and_meaning() -> None:
    loaded = load_with_sources(environ={"MAILQ_DATABASE_URL": "postgresql://u:secret@h/d", "MAILQ_LEASE_TIME": "2m"})

    described = {one.name: one for one in describe(loaded.settings, loaded.sources)}

    assert [field.name for field in dataclasses.fields(Settings)] == list(described)
    assert described["database_url"].value == "postgresql://u:***@h/d"
    assert described["lease_time"].value == "120s"
    assert described["lease_time"].source == "environment MAILQ_LEASE_TIME"
    assert described["soft_bounce"].value == "no"
    assert described["inet_protocols"].value == "ipv4, ipv6"
    assert described["soft_bounce"].source == "default"
    assert all(one.doc.endswith(".") for one in described.values())


def test_a_log_ins_password_is_shown_nowhere() -> None:
    settings = load(environ={}, mapping={"sasl_password_maps": ("[rh.test]:587=bob:s3:cr=et", "x.test=eve:pw")})
    shown = {one.name: one.value for one in describe(settings)}
    assert "[rh.test]:587=bob:***, x.test=eve:***" == shown["sasl_password_maps"]
    assert "s3" not in repr(settings)
    assert "pw" not in repr(settings)


def test_the_path_of_a_file_of_log_ins_is_shown() -> None:
    settings = load(environ={}, mapping={"sasl_password_maps": "file:/etc/mailq/logins, x.test=eve:"})
    shown = {one.name: one.value for one in describe(settings)}
    assert "file:/etc/mailq/logins, x.test=eve:***" == shown["sasl_password_maps"]


@pytest.mark.parametrize("entry", ["nonsense", "rh.test=bob", "=bob:pw", "rh.test=:s3cret", "file:logins"])
def test_a_log_in_that_does_not_parse_is_refused_without_showing_it(entry: str) -> None:
    with pytest.raises(SettingError, match="destination=user:password") as error:
        load(environ={}, mapping={"sasl_password_maps": (entry,)})
    assert entry not in str(error.value)


@pytest.mark.parametrize(
    "toml",
    [
        'tls_policy_maps = ["dest.test=secure match=a:b", ".test=may"]',
        'tls_policy_maps = "dest.test=secure match=a:b; .test=may"',
        '[tls_policy_maps]\n"dest.test" = "secure match=a:b"\n".test" = "may"',
    ],
)
def test_a_table_may_be_written_as_one_as_a_list_or_as_text(tmp_path: Path, toml: str) -> None:
    settings = _load(tmp_path, toml)

    assert settings.tls_policy_maps == ("dest.test=secure match=a:b", ".test=may")
    shown = {one.name: one.value for one in describe(settings)}["tls_policy_maps"]
    assert _load(tmp_path, f'tls_policy_maps = "{shown}"').tls_policy_maps == settings.tls_policy_maps


@pytest.mark.parametrize("toml", ["tls_policy_maps = 5", 'tls_policy_maps = ["a=b", 5]', "[tls_policy_maps]\na = 5"])
def test_a_table_of_anything_but_text_is_refused(tmp_path: Path, toml: str) -> None:
    with pytest.raises(SettingError, match="tls_policy_maps"):
        _load(tmp_path, toml)
