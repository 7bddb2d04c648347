"""``mailq from-postfix`` writes a file that mailq reads."""

import json
from pathlib import Path

from click.testing import CliRunner

from mailq.cli import main
from mailq.settings_sources import load


def test_the_file_written_is_read_back(tmp_path: Path) -> None:
    logins = tmp_path / "logins"
    logins.write_text("[smtp.example.org]:587 user:password\n", encoding="utf-8")
    source = tmp_path / "main.cf"
    source.write_text(
        f"relayhost = [smtp.example.org]:587\nsmtp_sasl_auth_enable = yes\n"
        f"smtp_sasl_password_maps = texthash:{logins}\n"
        "maximal_queue_lifetime = 2\nsmtp_header_checks = regexp:/etc/checks\nsmtpd_banner = hello\n",
        encoding="utf-8",
    )
    run = CliRunner().invoke(main, ["from-postfix", str(source)])
    assert 0 == run.exit_code, run.output
    target = tmp_path / "mailq.toml"
    target.write_text(run.stdout, encoding="utf-8")
    settings = load(environ={}, toml_path=target)
    assert ("[smtp.example.org]:587", 2) == (settings.relayhost, settings.maximal_queue_lifetime.days)
    assert (f"file:{logins}",) == settings.sasl_password_maps
    assert "# smtp_header_checks = regexp:/etc/checks" in run.stdout
    assert "smtpd" not in run.stdout


def test_what_goes_wrong_is_told_and_as_json(tmp_path: Path) -> None:
    broken = CliRunner().invoke(main, ["from-postfix"], input="not a parameter\n")
    assert 0 != broken.exit_code
    as_json = CliRunner().invoke(main, ["--json", "from-postfix"], input="relayhost = a.example\nsmtp_x = y\n")
    told = json.loads(as_json.stdout)
    assert {"relayhost": "a.example"} == told["settings"]
    assert ["smtp_x"] == [one["parameter"] for one in told["left"]]
