"""A real browser without a window: Chromium, which reaches nothing but this machine."""

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

WIDTH: Final = 1200
HEIGHT: Final = 800
_WAIT_SECONDS: Final = 15
_SWITCHES: Final = (
    "--headless=new",
    # Chromium refuses to run as root otherwise; it shows pages of this machine alone.
    "--no-sandbox",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--force-device-scale-factor=1",
    f"--window-size={WIDTH},{HEIGHT}",
)
_PNG_HEADER: Final = 8
_CHUNK_FRAME: Final = 12


@contextmanager
def browser(folder: Path) -> Iterator[Chrome]:
    """Run a browser that keeps its files in *folder*; skips the test where there is none, and fails it in CI."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        reason = "NOT TESTED IN A BROWSER: chromium and chromium-driver are missing; scripts/servers gets them"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = program
    for switch in (*_SWITCHES, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(switch)
    chrome = Chrome(options=options, service=ChromeService(executable_path=driver))
    try:
        chrome.set_page_load_timeout(_WAIT_SECONDS)
        yield chrome
    finally:
        chrome.quit()


def distinct_lines(png: bytes) -> int:
    """Return how many lines of a screenshot differ from each other: a blank page has one or two."""
    place, data, height = _PNG_HEADER, b"", 0
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        kind, chunk = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            height = int.from_bytes(chunk[4:8])
        elif kind == b"IDAT":
            data += chunk
        place += _CHUNK_FRAME + length
    pixels = zlib.decompress(data)
    stride = len(pixels) // height
    return len({pixels[start : start + stride] for start in range(0, len(pixels), stride)})
