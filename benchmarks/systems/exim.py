"""Exim with a configuration and spool of its own, which delivers each message as it comes in.

Two limits are lifted that would keep a kept session's messages waiting for a queue runner.
"""

import os
import pwd
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

from benchmarks.harness.cgroup import CpuGroup
from benchmarks.harness.system import Place, System
from mailq.testing.receivers.daemon import Daemon, find_program, free_port

_USER = "Debian-exim"
_CONFIGURATION = """\
exim_path = {program}
primary_hostname = client.test
spool_directory = {home}/spool
log_file_path = {home}/exim.%s.log
pid_file_path = {home}/exim.pid
local_interfaces = 127.0.0.1
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
message_size_limit = 0
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
recipients_max = 0
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin routers
all:
  driver = manualroute
  route_data = ${{lookup{{$domain}}lsearch{{{home}/routes}}}}
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = {port}
  hosts_avoid_tls = *
begin retry
* * F,1h,1m
"""


class _Instance(Daemon):
    package = "exim4-daemon-light"

    def __init__(self, place: Place) -> None:
        self._exim = find_program("usr/sbin/exim4", package=self.package)
        self._user = pwd.getpwnam(_USER)
        self._place = place
        self.port = free_port("127.0.0.1")
        super().__init__()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _listens_at(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def _prepare(self) -> Sequence[str]:
        configuration = self.home / "exim.conf"
        configuration.write_text(_CONFIGURATION.format(program=self._exim, home=self.home, port=self._place.port))
        nexthops = self._place.nexthops().items()
        routes = (f"{domain}: {nexthop.partition(']')[0].lstrip('[')}\n" for domain, nexthop in nexthops)
        (self.home / "routes").write_text("".join(routes))
        (self.home / "spool").mkdir()
        for path in (self.home, self.home / "spool"):
            os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return [str(self._exim), "-C", str(configuration), "-bdf", "-q5s", "-oX", f"127.0.0.1.{self.port}"]


class Exim(System):
    """As Debian's ``exim4-daemon-light`` has it, with a queue runner each five seconds for what was put off."""

    name: ClassVar[str] = "exim"
    _instance: _Instance
    _group: CpuGroup

    def start(self, place: Place, stack: ExitStack) -> None:
        """Start the daemon."""
        self.place = place
        self._instance = stack.enter_context(_Instance(place))
        # Nobody waits for its delivery processes, so what they used would be lost with them.
        self._group = stack.enter_context(CpuGroup(f"mailq-bench-{self._instance.pid}"))
        self._group.add(self._instance.pid)

    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return the daemon, in whose session all its processes are."""
        return {"exim": [self._instance.pid]}

    def cpu_seconds(self) -> Mapping[str, float]:
        """Return what all of its processes used, where the machine counts that; else those alive and waited for."""
        counted = self._group.seconds()
        return super().cpu_seconds() if counted is None else {"exim": counted}

    def injection(self) -> Mapping[str, Any]:
        """Return where it listens."""
        return {"kind": "smtp", "port": self._instance.port}

    def left(self) -> int:
        """Count the messages in its spool."""
        spool = self._instance.home / "spool" / "input"
        return sum(name.endswith("-H") for _, _, files in os.walk(spool) for name in files)

    def log(self) -> str:
        """Return its log's end."""
        return self._instance.log()[-3000:]
