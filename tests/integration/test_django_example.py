"""The example shop as its README starts it, used by a program and by a person with a browser.

With MAILQ_SCREENSHOTS set to a folder, the pictures of docs/django-admin.md are written there.
"""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.fakes.browser import WIDTH, browser, distinct_lines
from tests.fakes.poll import eventually

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
MESSAGES = "mailq/message/"
FEWEST_LINES = 100
MOST_BYTES = 150_000


@dataclass(frozen=True)
class Shop:
    """Where the demonstration is, and who may log in."""

    admin: str
    passwords: dict[str, str]

    @property
    def front(self) -> str:
        return self.admin.removesuffix("admin/")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The whole demonstration, in a process of its own."""
    folder = tmp_path_factory.mktemp("shop")
    told = folder / "told"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAILQ_", "DJANGO_"))}
    with told.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "examples/django_app/manage.py", "demo"],
            cwd=ROOT,
            env={**environment, "SHOP_DATA": str(folder), "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "Stop with" in told.read_text() or process.poll() is not None, within_seconds=PATIENCE)
        text = told.read_text()
        assert process.poll() is None, text
        address = re.search(r"http://\S+/admin/", text)
        assert address, text
        yield Shop(admin=address[0], passwords=dict(re.findall(r"^user (\w+) password (\S+)$", text, re.MULTILINE)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, told.read_text()
    finally:
        process.kill()
        process.wait()


class Client:
    """A program that logs in and sends forms."""

    def __init__(self, shop: Shop, user: str) -> None:
        self._shop, self._cookies = shop, CookieJar()
        # An opener without proxies: the shop is on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies)
        )
        self.get("login/")
        status, page = self.post("login/", username=user, password=shop.passwords[user], next="/admin/")
        assert (HTTPStatus.OK, True) == (status, "Log out" in page)

    def get(self, path: str) -> str:
        with self._opener.open(urllib.parse.urljoin(self._shop.admin, path), timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        url = urllib.parse.urljoin(self._shop.admin, path)
        token = next(one.value for one in self._cookies if one.name == "csrftoken")
        body = urllib.parse.urlencode({**fields, "csrfmiddlewaretoken": token or ""}).encode()
        try:
            with self._opener.open(urllib.request.Request(url, body), timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()


def state_of(client: Client, search: str) -> str:
    """Return the state that the list shows of the one message that *search* finds."""
    page = client.get(f"{MESSAGES}?{urllib.parse.urlencode({'q': search})}")
    (state,) = re.findall(r'field-states"><span class="mailq-state mailq-(\w+)"', page)
    return str(state)


def test_an_order_in_the_shop_is_confirmed_by_mail(shop: Shop) -> None:
    client = Client(shop, "admin")
    client.get(shop.front)
    status, page = client.post(shop.front, email="zoe@customer.test", item="a kettle")
    assert (HTTPStatus.OK, True) == (status, "is placed" in page)
    eventually(lambda: state_of(client, "order of a kettle") == "sent", within_seconds=PATIENCE)


def test_a_viewer_can_look_and_cannot_give_an_order(shop: Shop) -> None:
    client = Client(shop, "viewer")
    page = client.get(f"{MESSAGES}?q=erin@paused.test")
    (queue_id,) = re.findall(r"/message/([0-9A-Z]{20})/change/", page)
    assert 'name="action"' not in page + client.get(f"{MESSAGES}{queue_id}/change/")
    status, _ = client.post(MESSAGES, action="cancel", _selected_action=queue_id, confirmed="1")
    assert (HTTPStatus.FORBIDDEN, "queued") == (status, state_of(client, "erin@paused.test"))


@pytest.fixture(scope="module")
def chrome(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser in which the administrator has logged in."""
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.get(shop.admin)
        opened.find_element(By.NAME, "username").send_keys("admin")
        opened.find_element(By.NAME, "password").send_keys(shop.passwords["admin"])
        press(opened, "[type=submit]")
        yield opened


def press(chrome: Chrome, selector: str) -> None:
    """Click what leads to another page, and wait until that is there."""
    before = chrome.find_element(By.TAG_NAME, "html")
    chrome.find_element(By.CSS_SELECTOR, selector).click()
    WebDriverWait(chrome, PATIENCE).until(lambda one: one.find_element(By.TAG_NAME, "html") != before)
    WebDriverWait(chrome, PATIENCE).until(lambda one: one.execute_script("return document.readyState") == "complete")


def picture(chrome: Chrome, name: str, folder: Path, *, height: int) -> None:
    """Take a picture of the page, for the documents where they are wanted; it shows something."""
    frame = chrome.execute_script("return window.outerHeight - window.innerHeight")
    chrome.set_window_size(WIDTH, height + frame)
    png = chrome.get_screenshot_as_png()
    documents = os.environ.get("MAILQ_SCREENSHOTS")
    Path(documents or folder, f"django-{name}.png").write_bytes(png)
    assert distinct_lines(png) > FEWEST_LINES
    assert not documents or len(png) < MOST_BYTES


def text_of(chrome: Chrome) -> str:
    return chrome.find_element(By.ID, "content").text


def find(chrome: Chrome, words: str) -> None:
    """Search the messages as a person does, and open the one that is found."""
    search = chrome.find_element(By.ID, "searchbar")
    search.clear()
    search.send_keys(words)
    press(chrome, "#changelist-search [type=submit]")
    press(chrome, "#result_list th a")


def test_a_held_mail_is_found_released_through_the_preview_and_delivered(
    shop: Shop, chrome: Chrome, tmp_path: Path
) -> None:
    chrome.get(f"{shop.admin}{MESSAGES}")
    picture(chrome, "messages", tmp_path, height=680)
    find(chrome, "ann@customer.test")
    assert "is held by billing" in text_of(chrome)
    press(chrome, "#mailq-message-orders [value=release]")
    assert "One recipient would be touched" in text_of(chrome)
    chrome.find_element(By.NAME, "reason").send_keys("the VAT number is right now")
    picture(chrome, "preview", tmp_path, height=540)
    press(chrome, "#mailq-order [name=confirmed]")
    assert "Release: one recipient" in chrome.find_element(By.CLASS_NAME, "messagelist").text

    def is_sent() -> bool:
        chrome.refresh()
        return "1 sent" in text_of(chrome)

    eventually(is_sent, within_seconds=PATIENCE)
    assert "250 2.0.0" in text_of(chrome)
    chrome.get(f"{shop.admin}mailq/auditentry/")
    assert "the VAT number is right now" in text_of(chrome)


def test_a_deferred_mail_is_retried_from_the_list(shop: Shop, chrome: Chrome, tmp_path: Path) -> None:
    client = Client(shop, "admin")
    eventually(lambda: "deferred" in client.get(f"{MESSAGES}?q=carol@slow.test"), within_seconds=PATIENCE)
    chrome.get(f"{shop.admin}{MESSAGES}?q=carol@slow.test")
    press(chrome, "#result_list th a")
    chrome.find_element(By.CSS_SELECTOR, ".mailq-attempts details summary").click()
    picture(chrome, "message", tmp_path, height=1060)
    assert "Greylisted, come back later" in text_of(chrome)
    chrome.get(f"{shop.admin}{MESSAGES}?q=carol@slow.test")
    chrome.find_element(By.CSS_SELECTOR, "#result_list .action-select").click()
    chrome.find_element(By.CSS_SELECTOR, "select[name=action] option[value=retry]").click()
    press(chrome, ".actions button")
    assert "One recipient would be touched" in text_of(chrome)
    press(chrome, "#mailq-order [name=confirmed]")
    eventually(lambda: "mailq-deferred" not in client.get(f"{MESSAGES}?q=carol@slow.test"), within_seconds=PATIENCE)


def test_a_destination_is_shown_with_what_stops_it(shop: Shop, chrome: Chrome, tmp_path: Path) -> None:
    chrome.get(f"{shop.admin}mailq/destination/")
    assert "suspended" in text_of(chrome)
    chrome.get(f"{shop.admin}mailq/destination/paused.test/change/")
    assert "they asked us to wait" in text_of(chrome)
    picture(chrome, "destination", tmp_path, height=700)
