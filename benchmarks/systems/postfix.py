"""Postfix with a configuration and queue of its own: SMTP in, queue manager, SMTP out, each message fsynced.

What is set is what a private instance needs; all else is at its defaults, the limits on processes and on
sessions to a destination with it. ``postfix-tuned`` raises what an administrator would raise for bulk mail.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.harness.system import Place, System
from mailq.testing.receivers.postfix import PrivatePostfix

_MAIN = """\
myhostname = client.test
message_size_limit = 0
transport_maps = texthash:{home}/etc/transport
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
# postconf(5) and TUNING_README: no brake on input, more processes and sessions, sessions kept.
_TUNED = """\
in_flow_delay = 0
default_process_limit = 400
default_destination_concurrency_limit = 50
initial_destination_concurrency = 20
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = static:all
max_use = 1000
qmgr_message_active_limit = 50000
qmgr_message_recipient_limit = 50000
hash_queue_depth = 2
smtpd_client_connection_count_limit = 0
"""


class _Instance(PrivatePostfix):
    def __init__(self, place: Place, more: str) -> None:
        self._place, self._more = place, more
        super().__init__()

    def _prepare(self) -> Sequence[str]:
        command = self._configure(_MAIN.format(home=self.home) + self._more, _MASTER.format(port=self.port))
        lines = (f"{domain} smtp:{nexthop}\n" for domain, nexthop in self._place.nexthops().items())
        (self.home / "etc" / "transport").write_text("".join(lines))
        return command


class Postfix(System):
    """At its defaults."""

    name: ClassVar[str] = "postfix"
    more: ClassVar[str] = ""
    _instance: _Instance

    def start(self, place: Place, stack: ExitStack) -> None:
        """Start the instance."""
        self.place = place
        self._instance = _Instance(place, self.more)
        stack.enter_context(self._instance)

    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return its master, under which all of it runs."""
        process = self._instance._process  # noqa: SLF001 - the starter keeps it to itself
        assert process is not None
        return {"postfix": [process.pid]}

    def injection(self) -> Mapping[str, Any]:
        """Return where it listens."""
        return {"kind": "smtp", "port": self._instance.port}

    def left(self) -> int:
        """Count what lies in the queue."""
        queue = self._instance.home / "queue"
        return sum(_files(queue / name) for name in ("incoming", "active", "deferred"))

    def log(self) -> str:
        """Return its log's end."""
        return self._instance.log()[-3000:]


class PostfixTuned(Postfix):
    """With what an administrator of bulk mail would raise."""

    name = "postfix-tuned"
    more = _TUNED


def _files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
