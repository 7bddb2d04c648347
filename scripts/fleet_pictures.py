"""Pictures of Flower's pages, taken with a real browser while the fleet works."""

import contextlib
import tempfile
import time
from pathlib import Path

from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from scripts.fleet_processes import Fleet
from tests.fakes.browser import browser

_SECONDS = 90.0
_FILLED_SECONDS = 2.0
# What each page shows once it is filled.
_PAGES = {"tasks": (".test", "sent "), "workers": ("worker-1@", "worker-3@")}


def take_pictures(fleet: Fleet, folder: Path) -> list[Path]:
    """Write a picture of each page to *folder* and return their paths.

    Raises:
        TimeoutError: A page does not show what it should; the text says what it shows.
    """
    taken: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    root = fleet.url("flower", "5555").replace("://", f"://mailq:{fleet.secret('flower_password')}@")
    with tempfile.TemporaryDirectory(prefix="mailq-browser-") as profile, browser(Path(profile)) as chrome:
        for page, words in _PAGES.items():
            _wait_for(chrome, f"{root}/{page}", words)
            taken.append(folder / f"flower-{page}.png")
            taken[-1].write_bytes(chrome.get_screenshot_as_png())
    return taken


def _wait_for(chrome: Chrome, url: str, words: tuple[str, ...]) -> None:
    """Load a page again and again until it shows *words*; it fills itself a moment after it was loaded."""
    deadline = time.monotonic() + _SECONDS
    shown = ""
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutException):
            chrome.get(url)
            # Among thousands of tasks, those that had something to do.
            for field in chrome.find_elements(By.CSS_SELECTOR, "input[aria-controls=tasks-table]"):
                field.send_keys("result:sent")
        filled = time.monotonic() + _FILLED_SECONDS
        while time.monotonic() < filled:
            shown = chrome.find_element(By.TAG_NAME, "body").text
            if all(word in shown for word in words):
                return
            time.sleep(0.1)
    raise TimeoutError(f"{chrome.title} does not show {words}: {shown}")
