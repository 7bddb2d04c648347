"""Exim's SMTP server: what it accepts stays in its spool, where it can be read.

Exim looks up the user it was built for, Debian-exim, before it reads any
configuration; that user must exist.
"""

import os
import pwd
from collections.abc import Collection, Sequence

from mailq.testing.receivers.daemon import Daemon, ReceiverMissingError, find_program, free_port

_USER = "Debian-exim"

_CONFIGURATION = """\
primary_hostname = exim.test
spool_directory = {home}/spool
log_file_path = {home}/exim.%s.log
pid_file_path = {home}/exim.pid
local_interfaces = {address}
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
queue_only = true
acl_smtp_rcpt = recipient
begin acl
recipient:
  defer recipients = {busy}
        message = 4.2.2 Mailbox full
  deny  !recipients = {accepts}
        message = 5.1.1 No such user
  accept
"""


class EximServer(Daemon):
    """An Exim that knows some recipients and puts off others.

    Args:
        accepts: Recipients it takes.
        busy: Recipients it answers with 451 4.2.2; everybody else is answered with 550 5.1.1.
        address: Loopback address to listen at.
        port: 0 takes a free one.

    Raises:
        ReceiverMissingError: No Exim here, or not the user it was built for.
    """

    package = "exim4-daemon-light"

    def __init__(
        self, *, accepts: Collection[str], busy: Collection[str] = (), address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._exim = find_program("usr/sbin/exim4", package=self.package)
        try:
            self._user = pwd.getpwnam(_USER)
        except KeyError:
            raise ReceiverMissingError(f"there is no user {_USER}; scripts/servers makes it") from None
        self._accepts, self._busy = tuple(accepts), tuple(busy)
        self.address, self.port = address, port or free_port(address)
        super().__init__()

    def accepted(self) -> list[tuple[tuple[str, ...], str]]:
        """Return each message it took: the recipients, and the content with line feeds."""
        exim = (str(self._exim), "-C", str(self.home / "exim.conf"))
        messages = []
        for entry in self.run(*exim, "-bp").strip().split("\n\n"):
            head, *recipients = entry.splitlines() or [""]
            if head:
                content = self.run(*exim, "-Mvc", head.split()[2])
                messages.append((tuple(line.strip() for line in recipients), content))
        return messages

    def _listens_at(self) -> tuple[str, int]:
        return self.address, self.port

    def _prepare(self) -> Sequence[str]:
        configuration = self.home / "exim.conf"
        text = _CONFIGURATION.format(
            home=self.home,
            address=self.address,
            accepts=" : ".join(self._accepts),
            busy=" : ".join(self._busy),
        )
        configuration.write_text(text)
        (self.home / "spool").mkdir()
        for path in (self.home, self.home / "spool"):
            os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return [str(self._exim), "-C", str(configuration), "-bdf", "-oX", f"{self.address}.{self.port}"]
