"""``mailq sink`` as a program: every domain leads to it, it takes all mail, and tells how much."""

import json
import signal
import smtplib
import socket
import subprocess
import sys

from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings

COMMAND = [sys.executable, "-W", "ignore", "-u", "-m", "mailq.cli", "sink", "--json"]


def test_the_sink_takes_all_mail_for_every_domain_and_says_how_much() -> None:
    words = [*COMMAND, "--port", "0", "--dns-port", "0", "--listen", "127.0.0.1", "--listen", "127.0.0.2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        where = json.loads(running.stdout.readline())
        settings = Settings(nameservers=(where["nameservers"],), inet_protocols=("ipv4",))
        found = DnsResolver(settings).addresses("any.domain.test")
        assert {"127.0.0.1", "127.0.0.2"} == {str(one) for one in found}
        for address in ("127.0.0.1", "127.0.0.2"):
            with smtplib.SMTP(address, where["tcp_port"], timeout=30) as client:
                client.sendmail("a@home.test", ["b@any.domain.test"], b"Subject: x\r\n\r\nHello\r\n")
        running.send_signal(signal.SIGTERM)
        last = running.communicate(timeout=30)[0].splitlines()[-1]
        assert (0, 2) == (running.returncode, json.loads(last)["messages"])


def test_an_address_that_is_taken_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [*COMMAND, "--port", str(taken.getsockname()[1]), "--dns-port", "0"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert 78 == done.returncode
    assert "mailq: the sink cannot listen at 127.0.0.1: Address already in use" in done.stderr
