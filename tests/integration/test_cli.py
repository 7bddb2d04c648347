"""The command line on a real queue: what it prints, and the exit code each error ends in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mailq.cli import main
from mailq.queue.store import Store
from mailq.testing.dnsd import DnsServer

Run = Callable[..., Result]

_RAW = b"From: Ann <ann@example.org>\nTo: Bob <bob@x.org>\nBcc: eve@y.org\nSubject: Hi\n\nHello\n"


@pytest.fixture
def database(tmp_path: Path, sqlite_template: bytes) -> str:
    """The URL of an empty queue."""
    (tmp_path / "queue.db").write_bytes(sqlite_template)
    return f"sqlite:///{tmp_path}/queue.db"


@pytest.fixture
def run(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``mailq`` with the arguments given, on that queue."""
    monkeypatch.setenv("MAILQ_DATABASE_URL", database)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    # Wide enough for every table.
    monkeypatch.setenv("COLUMNS", "200")

    def run_it(*arguments: str, stdin: bytes = b"", **environ: str) -> Result:
        return CliRunner().invoke(main, list(arguments), input=stdin, env=environ)

    return run_it


def _json(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def _send(run: Run, *arguments: str) -> str:
    result = run("send", "-f", "ann@example.org", "--subject", "Hi", "--text", "Hello", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_a_message_from_standard_input_is_queued(run: Run) -> None:
    queue_id = run("send", "-t", stdin=_RAW).stdout.strip()

    (shown,) = _json(run("show", queue_id, "--json"))
    assert shown["sender"] == "ann@example.org"
    assert ["bob@x.org", "eve@y.org"] == [recipient["address"] for recipient in shown["recipients"]]


def test_a_message_is_composed_on_the_command_line_with_its_options(run: Run) -> None:
    options = ["--tag", "run=7", "--priority", "1", "--expires", "1d", "--envid", "E", "--key", "k"]
    options += ["--class", "password", "--tenant", "acme"]
    queue_id = _send(run, "--to", "bob@x.org", *options)

    assert queue_id == _send(run, "--to", "bob@x.org", *options)
    (shown,) = _json(run("--json", "show", queue_id))
    assert shown["tags"] == {"run": "7"}
    assert shown["priority"] == 1
    assert ("password", "acme") == (shown["mail_class"], shown["tenant"])
    assert shown["expires_at"] is not None


def test_each_of_many_files_gets_a_queue_id(run: Run, tmp_path: Path) -> None:
    names = [str(tmp_path / f"{number}.eml") for number in range(150)]
    for name in names:
        Path(name).write_bytes(_RAW)

    sent = _json(run("--json", "send", "--to", "bob@x.org", *names))

    assert names == [line["file"] for line in sent]
    assert len({line["queue_id"] for line in sent}) == 150


def test_nothing_is_queued_when_one_of_many_files_is_wrong(run: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.eml", tmp_path / "bad.eml"
    good.write_bytes(_RAW)
    bad.write_bytes(b"Subject: no author\n\nHello\n")

    result = run("send", "--to", "bob@x.org", str(good), str(bad))

    assert result.exit_code == 65
    assert f"mailq: {bad}: the message has no address in From; add one" in result.stderr
    assert "nothing was queued" in result.stderr
    assert _json(run("list", "--json")) == []


def test_the_list_shows_state_route_and_next_attempt(run: Run) -> None:
    queue_id = _send(run, "--to", "bob@x.org", "--after", "2h")

    head, row = run("list").stdout.splitlines()

    assert head.split() == ["QUEUE", "ID", "STATE", "RECIPIENT", "NEXTHOP", "TRIES", "NEXT", "LAST", "ANSWER"]
    assert row.split()[:5] == [queue_id, "queued", "bob@x.org", "x.org", "0"]
    assert "in 1h59m" in row or "in 2h" in row


def test_the_list_chooses_by_every_option(run: Run) -> None:
    ids = [_send(run, "--to", f"bob@{domain}") for domain in ("x.org", "y.org", "z.org")]
    run("hold", "--yes", ids[2])

    def listed(*arguments: str) -> list[str]:
        return [line["queue_id"] for line in _json(run("list", "--json", *arguments))]

    assert ids == listed()
    assert ids[:1] == listed("--domain", "x.org")
    assert ids[1:2] == listed("--recipient", "bob@y.org")
    assert ids[1:2] == listed("--nexthop", "y.org")
    assert ids[2:] == listed("--state", "held")
    assert ids[:2] == listed("--limit", "2")
    assert listed("--sender", "") == []
    assert ids[:1] == listed(ids[0])


def test_a_list_that_is_cut_says_so_and_an_empty_one_too(run: Run) -> None:
    assert run("list").stderr == "The queue is empty.\n"
    for _ in range(2):
        _send(run, "--to", "bob@x.org")

    assert run("list", "--limit", "1").stderr == "There are more than 1; --limit=0 lists all.\n"
    assert run("list", "--domain", "nowhere.org").stderr == "No recipient matches.\n"


def test_show_tells_people_what_comes_next(run: Run) -> None:
    queue_id = _send(run, "--to", "bob@x.org")

    assert (
        "bob@x.org: queued\n  by way of x.org, not tried yet\n  next: attempt 1, as soon"
        in run("show", queue_id).stdout
    )
    run("hold", "--yes", queue_id)
    assert "next: nothing until somebody releases it: mailq release" in run("show", queue_id).stdout
    run("cancel", "--yes", queue_id)
    assert "next: nothing; it ended" in run("show", queue_id).stdout


def test_people_hold_release_retry_cancel_and_purge(run: Run) -> None:
    queue_id = _send(run, "--to", "bob@x.org", "--to", "eve@y.org")

    assert run("hold", "--yes", queue_id).stdout == "2 recipients held.\n"
    assert run("release", "--yes", "--domain", "x.org").stdout == "1 recipient released.\n"
    assert run("retry", "--yes", "--all").stdout == "1 recipient due now.\n"
    (done,) = _json(run("cancel", "--yes", "--sender", "ann@example.org", "--json"))
    assert (done["verb"], done["counted"], done["touched"]) == ("cancel", 2, 2)
    assert run("purge", "--older-than", "1h").stdout == "0 messages deleted.\n"
    assert run("purge", "--older-than", "0").stdout == "1 message deleted.\n"


@pytest.mark.parametrize("verb", ["hold", "release", "retry", "cancel", "bounce", "expire"])
def test_an_action_wants_to_be_told_on_what(run: Run, verb: str) -> None:
    result = run(verb)

    assert result.exit_code == 2
    assert (
        "say which: queue ids, --sender, --recipient, --domain, --nexthop or another choice (see --help), or --all"
        in result.stderr
    )


def test_a_mistyped_queue_id_is_no_success(run: Run) -> None:
    for verb in ("show", "hold", "cancel"):
        result = run(verb, "NOSUCH")
        assert result.exit_code == 65
        assert result.stderr == "mailq: no message has the queue id NOSUCH\n"


def test_sendmail_reads_recipients_and_supplies_the_author(run: Run) -> None:
    raw = b"To: bob@x.org\nBcc: eve@y.org\nSubject: Hi\n\nHello\n.\nmore\n"

    assert run("sendmail", "-t", "-oi", "-f", "ann@example.org", "-F", "Ann A.", "zoe@z.org", stdin=raw).exit_code == 0
    found = _json(run("list", "--json"))
    assert ["zoe@z.org", "bob@x.org", "eve@y.org"] == [line["address"] for line in found]
    assert {"ann@example.org"} == {line["sender"] for line in found}


@pytest.mark.parametrize(
    ("arguments", "delimiters"),
    [
        (["send", "--to", "bob@x.org", "--verp"], "+="),
        (["send", "--verp-delimiters", "-=", "--to", "bob@x.org"], "-="),
        (["send", "--to", "bob@x.org"], ""),
        (["sendmail", "-XV", "bob@x.org"], "+="),
        (["sendmail", "-XV-=", "bob@x.org"], "-="),
        (["sendmail", "-X", "traffic.log", "bob@x.org"], ""),
    ],
)
def test_an_envelope_sender_by_recipient_is_asked_for(
    run: Run, database: str, arguments: list[str], delimiters: str
) -> None:
    assert run(*arguments, stdin=_RAW).exit_code == 0
    (line,) = _json(run("list", "--json"))
    store = Store.open(database)
    assert delimiters == store.show(line["queue_id"]).verp
    store.close()


def test_sendmails_message_ends_at_a_dot_unless_told_otherwise(run: Run, database: str) -> None:
    for flags in ([], ["-i"], ["-oi"]):
        run("sendmail", *flags, "-f", "ann@example.org", "bob@x.org", stdin=b"From: a@b\n\nHello\n.\nmore\n")

    store = Store.open(database)
    bodies = []
    for line in _json(run("list", "--json")):
        with store.bodies.open(line["queue_id"]) as body:
            bodies.append(body.read().partition(b"\r\n\r\n")[2])
    store.close()
    assert bodies == [b"Hello\r\n", b"Hello\r\n.\r\nmore\r\n", b"Hello\r\n.\r\nmore\r\n"]


@pytest.mark.parametrize("arguments", [["-bs"], ["-bp"]])
def test_sendmails_other_modes_are_refused(run: Run, arguments: list[str]) -> None:
    assert run("sendmail", *arguments).exit_code == 2


def test_sendmail_asks_its_caller_to_try_again_while_the_database_is_down(run: Run) -> None:
    down = {"MAILQ_DATABASE_URL": "postgresql://ann:secret@127.0.0.1:1/mail"}

    result = run("sendmail", "-f", "ann@example.org", "bob@x.org", stdin=_RAW, **down)

    assert result.exit_code == 75
    assert "mailq: cannot use the database" in result.stderr


@pytest.mark.parametrize(
    ("code", "said", "arguments", "stdin"),
    [
        (65, "the address 'bob' has no domain", ["send", "--to", "bob"], _RAW),
        (65, "U+000A", ["send", "--to", "bob@x.org\nDATA"], _RAW),
        (65, "NUL octet at offset", ["send", "--to", "bob@x.org"], _RAW + b"\0"),
        (65, "octets that are not UTF-8", ["send", "--to", "bob@x.org"], b"S: \xff\n" + _RAW),
        (65, "has no From header", ["send", "-f", "", "--to", "bob@x.org"], b"To: bob@x.org\n\nHello\n"),
        (65, "begins with an empty line", ["send", "-f", "", "--to", "bob@x.org"], b""),
        (65, "there is no recipient; give --to ADDRESS, or -t", ["send"], _RAW),
        (65, "names no recipient in To, Cc or Bcc", ["send", "-t"], b"From: a@b.org\n\nHello\n"),
        (65, "/nowhere.eml: No such file or directory", ["send", "--to", "b@x.org", "/nowhere.eml"], b""),
        (
            65,
            "cannot be composed",
            ["send", "-f", "a@b", "--to", "b@x", "--text", "T", "--subject", "a\nBcc: c@x"],
            b"",
        ),
        (65, "the message has no content", ["send", "-f", "a@b", "--to", "b@x", "--subject", "Hi"], b""),
        (2, "write NAME=VALUE", ["send", "--to", "bob@x.org", "--tag", "x"], _RAW),
        (2, "must be a duration such as", ["send", "--to", "bob@x.org", "--expires", "soon"], _RAW),
        (2, "No such option '--colour'", ["list", "--colour"], b""),
        (2, "No such command 'lsit'", ["lsit"], b""),
    ],
)
def test_wrong_input_ends_in_one_clear_line_and_an_untouched_queue(
    run: Run, code: int, said: str, arguments: list[str], stdin: bytes
) -> None:
    result = run(*arguments, stdin=stdin)

    assert code == result.exit_code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert _json(run("list", "--json")) == []


def test_a_message_of_50_megabytes_is_refused(run: Run, tmp_path: Path) -> None:
    big = tmp_path / "big.eml"
    big.write_bytes(_RAW + b"x" * 50_000_000)

    result = run("send", "-t", str(big))

    assert result.exit_code == 65
    assert "more than message_size_limit_bytes with 10240000; make it smaller" in result.stderr
    assert _json(run("list", "--json")) == []


@pytest.mark.parametrize(
    ("code", "said", "environ"),
    [
        (78, "unknown setting 'relay_host' (environment MAILQ_RELAY_HOST); did you mean", {"MAILQ_RELAY_HOST": "x"}),
        (78, "'lease_time' (environment MAILQ_LEASE_TIME) must be a duration", {"MAILQ_LEASE_TIME": "soon"}),
        (78, "configuration file /nowhere.toml: No such file", {"MAILQ_CONFIG": "/nowhere.toml"}),
        (78, "setting 'relayhost': bad destination '[not'", {"MAILQ_RELAYHOST": "[not closed"}),
        (69, "cannot use the database", {"MAILQ_DATABASE_URL": "postgresql://ann:secret@127.0.0.1:1/mail"}),
    ],
)
def test_wrong_surroundings_end_in_one_clear_line(run: Run, code: int, said: str, environ: dict[str, str]) -> None:
    result = run("list", **environ)

    assert code == result.exit_code
    assert result.stderr.startswith("mailq: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.stderr


def test_details_are_shown_where_they_are_asked_for(run: Run) -> None:
    result = run("list", "-v", MAILQ_LEASE_TIME="soon")

    assert "Traceback" in result.stderr
    assert result.exit_code == 78


def test_an_error_of_our_own_says_how_to_see_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("mailq.api.Queue.find", broken)

    result = run("list")

    assert result.exit_code == 1
    assert result.stderr == "mailq: internal error: ZeroDivisionError: oh; run again with -v to see where\n"


def test_a_configuration_file_may_be_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mailq.toml"
    path.write_text('relayhost = "[smart.example.org]:2525"\n', encoding="utf-8")
    queue_id = run("--config", str(path), "send", "-t", stdin=_RAW).stdout.strip()

    (shown,) = _json(run("show", queue_id, "--json", "--config", str(path)))
    assert {"[smart.example.org]:2525"} == {recipient["nexthop"] for recipient in shown["recipients"]}


@pytest.mark.postgres
def test_migrate_makes_the_tables_of_a_server_and_nothing_else_does(run: Run, empty_postgres_url: str) -> None:
    server = {"MAILQ_DATABASE_URL": empty_postgres_url}

    missing = run("send", "-t", stdin=_RAW, **server)
    checked = run("migrate", "--check", **server)
    (first,) = _json(run("migrate", "--json", **server))
    again = run("migrate", **server)

    assert missing.exit_code == checked.exit_code == 78
    assert "run mailq migrate" in missing.stderr
    assert "run mailq migrate" in checked.stderr
    assert first["before"] is None
    assert again.stdout == f"The schema is up to date: {first['after']}.\n"
    assert run("migrate", "--check", **server).exit_code == 0
    assert run("send", "-t", stdin=_RAW, **server).exit_code == 0


def test_doctor_finds_nothing_wrong_where_all_is_well(run: Run) -> None:
    with DnsServer({"example.com": {"MX": ["0 ."]}}) as dns:
        result = run("doctor", MAILQ_NAMESERVERS=dns.nameserver, MAILQ_MYHOSTNAME="mail.example.org")

    assert result.exit_code == 0, result.stdout
    assert f"nameservers   {dns.nameserver}" in result.stdout
    assert "environment MAILQ_NAMESERVERS" in result.stdout
    assert "ok    database: reachable, its schema is up to date" in result.stdout
    assert "ok    DNS: the name servers answer" in result.stdout
    assert "ok    host name: mail.example.org" in result.stdout


def test_doctor_says_what_is_down_and_what_to_do(run: Run) -> None:
    with DnsServer({"example.com": "SERVFAIL"}) as dns:
        (found,) = _json_of_failure(
            run(
                "doctor",
                "--json",
                MAILQ_DATABASE_URL="postgresql://ann:secret@127.0.0.1:1/mail",
                MAILQ_BROKER_URL="redis://:secret@127.0.0.1:1/0",
                MAILQ_NAMESERVERS=dns.nameserver,
                MAILQ_MYHOSTNAME="localhost",
                MAILQ_RELAYHOST="[not closed",
                MAILQ_TLS_POLICY_MAPS="dest.test=encrypt; other.test=bogus",
            )
        )

    grades = {check["name"]: check["grade"] for check in found["checks"]}
    down = {"database": "fail", "broker": "fail", "routes": "fail", "DNS": "fail", "TLS policy": "fail"}
    assert grades == {**down, "host name": "warn", "TLS authorities": "ok", "reports": "ok", "limits": "ok"}
    assert all(check["advice"] for check in found["checks"] if check["grade"] != "ok")
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(
    ("level", "authentic", "grade", "words"),
    [
        ("enabled", True, "warn", "DANE is off"),
        ("dnssec", False, "warn", "the name servers do not vouch for example.com"),
        ("dnssec", True, "ok", "DANE is on"),
    ],
)
def test_doctor_says_whether_dane_has_an_effect(
    run: Run, level: str, *, authentic: bool, grade: str, words: str
) -> None:
    with DnsServer({"example.com": {"A": ["192.0.2.1"], "MX": ["0 ."]}}, authentic=authentic) as dns:
        result = run(
            "doctor",
            "--json",
            MAILQ_NAMESERVERS=dns.nameserver,
            MAILQ_INET_PROTOCOLS="ipv4",
            MAILQ_TLS_POLICY_MAPS="dest.test=dane-only",
            MAILQ_DNS_SUPPORT_LEVEL=level,
        )
    checks = {check["name"]: check for check in json.loads(result.stdout.splitlines()[-1])["checks"]}
    assert grade == checks["TLS policy"]["grade"]
    assert words in checks["TLS policy"]["finding"]


def _json_of_failure(result: Result) -> list[Any]:
    assert result.exit_code == 78, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_doctor_shows_every_setting_on_demand(run: Run) -> None:
    with DnsServer({"example.com": {"MX": ["0 ."]}}) as dns:
        found = _json(run("doctor", "--all", "--json", MAILQ_NAMESERVERS=dns.nameserver))[0]

    assert {
        "name": "soft_bounce",
        "value": "no",
        "source": "default",
        "doc": "Keep mail that would bounce or expire.",
    } in found["settings"]


def test_help_documents_every_command_and_exit_code(run: Run) -> None:
    text = run("--help").stdout

    for word in [*main.commands, "65", "69", "75", "78"]:
        assert word in text
    for name in main.commands:
        assert run(name, "--help").exit_code == 0
