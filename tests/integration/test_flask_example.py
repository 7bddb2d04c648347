"""The Flask example: a real client and a real browser sign up and see the confirmation delivered."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from examples.flask_app.__main__ import demonstration
from examples.flask_app.app import Account, create_app, db
from mailq.testing.outbox import outbox
from mailq.testing.smtp_scripts import Script, rejecting
from tests.fakes.browser import browser, distinct_lines
from tests.fakes.poll import eventually

PICTURES = os.environ.get("MAILQ_SCREENSHOTS")


@pytest.fixture(autouse=True)
def only_the_examples_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment's."""
    for name in [name for name in os.environ if name.startswith("MAILQ_")]:
        monkeypatch.delenv(name)


@contextmanager
def site(folder: Path, script: Script | None = None) -> Iterator[str]:
    """Serve the example and yield its address."""
    with demonstration(folder, script=script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


def test_a_client_signs_up_and_is_told_the_servers_words(tmp_path: Path) -> None:
    with site(tmp_path, rejecting("gone@x.org")) as address, httpx.Client(base_url=address, timeout=20) as client:
        ann = client.post("/", data={"email": "ann@x.org"})
        assert 302 == ann.status_code
        eventually(lambda: ">sent<" in client.get(ann.headers["Location"]).text, within_seconds=20)
        gone = client.post("/", data={"email": "gone@x.org"}).headers["Location"]
        eventually(lambda: "550 5.1.1 User unknown" in client.get(gone).text, within_seconds=20)

        assert 409 == client.post("/", data={"email": "ann@x.org"}).status_code
        assert "has an account already" in client.post("/", data={"email": "ann@x.org"}).text
        refused = client.post("/", data={"email": "nobody"})
        assert 400 == refused.status_code
        assert 404 == client.get("/accounts/99").status_code


def test_who_has_an_account_already_gets_no_second_mail() -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    with app.app_context():
        db.create_all()
    with outbox() as box:
        client = app.test_client()
        assert [302, 409, 400] == [
            client.post("/", data={"email": email}).status_code for email in ("ann@x.org", "ann@x.org", "a@b@c")
        ]
        (message,) = box.messages
        assert ("Welcome to the shop", ("ann@x.org",)) == (message.subject, message.recipients)
        with app.app_context():
            assert [message.queue_id] == list(db.session.execute(db.select(Account.queue_id)).scalars())


def test_a_browser_sees_the_confirmation_on_its_way(tmp_path: Path) -> None:
    with site(tmp_path) as address, browser(tmp_path) as chrome:
        chrome.get(address)
        chrome.find_element(By.NAME, "email").send_keys("ann@example.com")
        chrome.find_element(By.CSS_SELECTOR, "button").click()
        WebDriverWait(chrome, 20).until(lambda page: "sent" == page.find_element(By.ID, "state").text)
        png = chrome.get_screenshot_as_png()

        assert "Welcome, ann@example.com" == chrome.find_element(By.CSS_SELECTOR, "h1").text
        assert "250 2.0.0" in chrome.find_element(By.CSS_SELECTOR, "table").text
        (Path(PICTURES or tmp_path) / "flask-account.png").write_bytes(png)
        assert distinct_lines(png) > 50


@pytest.mark.parametrize("command", ["list", "migrate"])
def test_the_examples_command_line_has_its_settings(command: str, tmp_path: Path) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/shop.sqlite3"})
    run = app.test_cli_runner().invoke(args=["mailq", command])

    assert 0 == run.exit_code, run.output
