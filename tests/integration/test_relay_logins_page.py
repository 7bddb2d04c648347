"""The hooks that the page about log-ins shows work as they stand."""

import json
import re
import threading
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from mailq.delivery.hooks import Hooks
from mailq.settings_sources import load
from mailq.smtp.credentials import Credentials, LoginRequest, TokenRequest
from mailq.smtp.sasl_maps import parse_table
from mailq.worker.plugins import load_hooks

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "relay-logins.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


class Issuer(BaseHTTPRequestHandler):
    """Gives a token to whoever has the refresh token."""

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        good = form == {
            "grant_type": ["refresh_token"],
            "client_id": ["mailq"],
            "client_secret": ["hush"],
            "refresh_token": ["once"],
        }
        body = json.dumps({"access_token": "ya29.abc", "expires_in": 3599, "token_type": "Bearer"}).encode()
        self.send_response(200 if good else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def token_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join(10)


def hooks_of(block: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    (folder / f"{name}.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return load_hooks(f"{name}:HOOKS")


def test_the_token_hook_fetches_a_token_that_ends(
    token_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("TOKEN_URL", token_url),
        ("CLIENT_ID", "mailq"),
        ("CLIENT_SECRET", "hush"),
        ("REFRESH_TOKEN", "once"),
    ):
        monkeypatch.setenv(f"OAUTH_{name}", value)
    hooks = hooks_of(blocks("python")[0], "page_token_hooks", tmp_path, monkeypatch)
    token = hooks.token(TokenRequest(user="user@example.com", host="smtp.gmail.com", port=587))
    assert "ya29.abc" == token.value
    assert token.expires_at is not None
    assert timedelta(minutes=50) < token.expires_at - datetime.now(UTC) <= timedelta(seconds=3599)


def test_the_credentials_hook_finds_a_customers_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = hooks_of(blocks("python")[1], "page_login_hooks", tmp_path, monkeypatch)

    def asked(sender: str) -> Credentials | None:
        return hooks.login(LoginRequest(sender=sender, host="relay.test", nexthop="relay.test", port=587))

    assert [Credentials("shop", "the shop's password"), None] == [asked("news@shop.example"), asked("a@b.example")]


@pytest.mark.parametrize("block", blocks("toml"))
def test_the_settings_of_the_page_are_settings(block: str) -> None:
    assert load(environ={}, mapping=tomllib.loads(block) | {"database_url": "sqlite:////nowhere"}).sasl_auth_enable


def test_the_file_of_the_page_is_read() -> None:
    (block,) = blocks("text")
    assert ["[smtp.example.com]:587", "newsletter@example.com", "@example.org"] == list(parse_table(block))
