"""The pages about Flask, asyncio and testing: their code runs as it stands."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from mailq.queue.states import ShownState
from mailq.queue.store import Store

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(folder: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAILQ_", "FLASK_"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ | {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def queued(database: Path) -> int:
    store = Store.open(f"sqlite:///{database}")
    try:
        return store.counts()[ShownState.QUEUED]
    finally:
        store.close()


def namespace_of(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "a_page"}
    exec(compile(block, "page", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def only_the_pages_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment's."""
    for name in [name for name in os.environ if name.startswith(("MAILQ_", "FLASK_"))]:
        monkeypatch.delenv(name)


def test_the_flask_quickstart_queues_an_order_with_its_mail(sqlite_url: str, tmp_path: Path) -> None:
    page = namespace_of(blocks("flask.md")[0])
    app = page["create_app"]({"SQLALCHEMY_DATABASE_URI": sqlite_url})

    assert 200 == app.test_client().post("/orders/kettle").status_code
    assert 1 == queued(tmp_path / "queue.db")


def test_what_flask_mail_calls_a_message_is_converted() -> None:
    convert = namespace_of(blocks("flask.md")[1])["as_email"]
    attachment = SimpleNamespace(content_type="text/csv", data="a,b", filename="list.csv")
    old = SimpleNamespace(
        sender="a@x.org",
        subject="Hello",
        recipients=["b@x.org", "c@x.org"],
        body="plain",
        html="<p>rich",
        attachments=[attachment],
    )
    message = convert(old)

    assert ["a@x.org", "b@x.org, c@x.org", "Hello"] == [message[name] for name in ("From", "To", "Subject")]
    assert ["text/plain", "text/html", "text/csv"] == [
        part.get_content_type() for part in message.walk() if not part.is_multipart()
    ]


_MIGRATING = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from mailq.contrib.flask import Mailq
{block}
app = Flask("application")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///{folder}/application.db"
db = SQLAlchemy(app)
mail = Mailq(app)
migrate.init_app(app, db)

class Person(db.Model):
    id = db.Column(db.Integer, primary_key=True)
"""


_COMMANDS = """
from application import app
runner = app.test_cli_runner()
for words in ("mailq migrate", "db init", "db migrate", "db upgrade", "mailq migrate"):
    result = runner.invoke(args=words.split())
    assert not result.exit_code, (words, result.output, result.exception)
print(result.output)
"""


def test_flask_migrate_leaves_the_queue_alone_and_both_live_in_one_database(tmp_path: Path) -> None:
    code = _MIGRATING.format(block=blocks("flask.md")[2], folder=tmp_path)
    (tmp_path / "application.py").write_text(code, encoding="utf-8")

    assert "up to date" in run(tmp_path, "-c", _COMMANDS)
    (revision,) = (tmp_path / "migrations/versions").glob("*.py")
    written = revision.read_text(encoding="utf-8")
    assert ("'person'" in written, "mailq" in written) == (True, False)


def test_the_asyncio_quickstart_queues_a_message(tmp_path: Path) -> None:
    assert "queued" in run(tmp_path, "-c", blocks("asyncio.md")[0])
    assert 1 == queued(tmp_path / "shop.sqlite3")


async def lifespan(app: Any, inside: Any) -> None:
    """Start *app*, run *inside*, stop it, as a server does."""
    asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, asked.get, said.put))
    await asked.put({"type": "lifespan.startup"})
    assert {"type": "lifespan.startup.complete"} == await asyncio.wait_for(said.get(), 20)
    await inside()
    await asked.put({"type": "lifespan.shutdown"})
    await asyncio.wait_for(life, 20)


def test_the_asgi_application_queues_with_its_own_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = namespace_of(blocks("asyncio.md")[1])["app"]

    async def requests() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            assert [201, 500, 201] == [(await client.post(path)).status_code for path in ("/", "/fail", "/")]

    asyncio.run(lifespan(app, requests))
    assert 2 == queued(tmp_path / "shop.sqlite3")


def test_the_tests_of_the_page_about_testing_pass(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("testing.md")):
        (tmp_path / f"test_page_{number}.py").write_text(block, encoding="utf-8")
    plugins = ("-p", "mailq.testing.pytest_plugin", "-p", "no:cacheprovider")

    assert "3 passed" in run(tmp_path, "-m", "pytest", "-q", *plugins, str(tmp_path))
