"""The application with everything it needs in one process: a SQLite file, a worker, and a mail server that takes all.

Nothing leaves this machine. ``python -m examples.flask_app [--port 5000]``
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from flask import Flask
from werkzeug.serving import BaseWSGIServer, make_server

from examples.flask_app.app import create_app, db, mail
from mailq.testing.sink import Sink
from mailq.testing.smtp_scripts import Script
from mailq.worker.embedded import embedded


@contextmanager
def demonstration(folder: Path, *, port: int = 0, script: Script | None = None) -> Iterator[BaseWSGIServer]:
    """Run all but the web server, and hand that out ready to serve; its files are in *folder*.

    Args:
        folder: There already.
        port: 0 takes a free one.
        script: What the mail server says; None: it takes every message.
    """
    app = create_app(
        {
            "SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder / 'shop.sqlite3'}",
            "MAILQ_MYHOSTNAME": "shop.example.org",
            "MAILQ_DISPATCH_INTERVAL": timedelta(seconds=0.2),
            "MAILQ_WORKER_CONCURRENCY": 5,
        }
    )
    with Sink(script) as sink:
        with app.app_context():
            db.create_all()
            mail.queue.migrate()
            settings = sink.settings(mail.queue.settings)
        with embedded(settings):
            server = make_server("127.0.0.1", port, app, threaded=True)
            try:
                yield server
            finally:
                server.server_close()
                _close(app)


def _close(app: Flask) -> None:
    with app.app_context():
        mail.queue.close()
        db.engine.dispose()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.flask_app", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    port = parser.parse_args().port
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with (
        tempfile.TemporaryDirectory(prefix="mailq-flask-") as folder,
        demonstration(Path(folder), port=port) as server,
    ):
        print(f"Open http://127.0.0.1:{server.server_port}/ and sign up. Ctrl-C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
