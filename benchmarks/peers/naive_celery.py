"""One Celery task a message, which opens a session with smtplib: what tutorials show.

Where mail goes is told by the environment, so that no DNS is asked here either.
"""

import json
import os
import smtplib
from typing import Any

from celery import Celery

app: Any = Celery("naive", broker=os.environ["BENCH_BROKER"])
app.conf.task_ignore_result = True
HOSTS: dict[str, tuple[str, int]] = {
    domain: (host, port) for domain, (host, port) in json.loads(os.environ["BENCH_HOSTS"]).items()
}


@app.task
def send(recipients: list[str], content: str) -> None:
    """Send one message, to each domain by itself."""
    for domain in dict.fromkeys(one.partition("@")[2] for one in recipients):
        host, port = HOSTS[domain]
        with smtplib.SMTP(host, port, local_hostname="client.test", timeout=60) as session:
            theirs = [one for one in recipients if one.endswith("@" + domain)]
            session.sendmail("sender@sender.test", theirs, content)
