"""Postfix's SMTP server: what it accepts stays in its queue, where it can be read.

Only the receiving half runs; there is no queue manager, so nothing leaves.
The users are some that every Debian has, never those of an installed Postfix.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mailq.testing.receivers.daemon import Daemon, find_program, free_port

_OWNER = "list"
_DROP_GROUP = "irc"
_OWNED = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")

_MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
daemon_directory = {programs}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH PATH TZ
maillog_file = {home}/postfix.log
maillog_file_prefixes = {home}
mail_owner = {owner}
setgid_group = {group}
default_privs = nobody
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = {address}
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
"""
_RECEIVING = """\
myhostname = postfix.test
relay_domains = {domains}
relay_recipient_maps = {known}
smtpd_relay_restrictions = permit_auth_destination, reject
smtpd_recipient_restrictions = check_recipient_access {busy}
smtpd_peername_lookup = no
in_flow_delay = 0
"""

_MASTER = """\
{address}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class PrivatePostfix(Daemon):
    """An instance with a configuration, a queue and a port of its own.

    Args:
        address: Loopback address to listen at.
        port: 0 takes a free one.

    Raises:
        ReceiverMissingError: No Postfix here.
    """

    package = "postfix"

    def __init__(self, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self._master = find_program("usr/lib/postfix/sbin/master", package=self.package)
        self.address, self.port = address, port or free_port(address)
        super().__init__()

    def _listens_at(self) -> tuple[str, int]:
        return self.address, self.port

    def _environment(self) -> Mapping[str, str]:
        # An unpacked Postfix finds its own libraries this way; an installed one needs no help.
        libraries = str(self._master.parent.parent)
        return {**super()._environment(), "MAIL_CONFIG": str(self.home / "etc"), "LD_LIBRARY_PATH": libraries}

    def _configure(self, more: str, master: str) -> Sequence[str]:
        """Write the two files, and return the command that starts the instance.

        Args:
            more: What ``main.cf`` has beside what every private instance needs; of two lines about one parameter,
                the later holds.
            master: All of ``master.cf``.
        """
        self._make_directories()
        etc = self.home / "etc"
        main = _MAIN.format(
            home=self.home, programs=self._master.parent, owner=_OWNER, group=_DROP_GROUP, address=self.address
        )
        (etc / "main.cf").write_text(main + more)
        (etc / "master.cf").write_text(master)
        return [str(self._master), "-c", str(etc), "-d"]

    def _make_directories(self) -> None:
        for name in ("etc", "data", "queue", "queue/pid", "queue/public", "queue/maildrop"):
            (self.home / name).mkdir()
        for name in _OWNED:
            (self.home / "queue" / name).mkdir()
            shutil.chown(self.home / "queue" / name, _OWNER)
        for name in ("public", "maildrop"):
            shutil.chown(self.home / "queue" / name, _OWNER, _DROP_GROUP)
        shutil.chown(self.home / "data", _OWNER)
        os.chmod(self.home / "etc", 0o755)  # noqa: PTH101, S103 - the daemons read it under another user id


class PostfixServer(PrivatePostfix):
    """A Postfix that knows some recipients and puts off others.

    Args:
        accepts: Recipients it takes.
        busy: Recipients it answers with 450 4.2.1; everybody else is answered with 550 5.1.1.
        address: Loopback address to listen at.
        port: 0 takes a free one.
        parameters: Of main.cf, instead of or beside those set here.

    Raises:
        ReceiverMissingError: No Postfix here.
    """

    def __init__(
        self,
        *,
        accepts: Collection[str],
        busy: Collection[str] = (),
        address: str = "127.0.0.1",
        port: int = 0,
        parameters: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._postcat = find_program("usr/sbin/postcat", package=self.package)
        self._accepts, self._busy = tuple(accepts), tuple(busy)
        self._parameters = parameters
        super().__init__(address=address, port=port)

    def accepted(self) -> list[tuple[tuple[str, ...], str]]:
        """Return each message it took: the recipients, and the content with line feeds."""
        queue = self.home / "queue" / "incoming"
        return [self._read(path) for path in sorted(queue.iterdir(), key=lambda path: path.stat().st_mtime_ns)]

    def _read(self, path: Path) -> tuple[tuple[str, ...], str]:
        postcat = (str(self._postcat), "-c", str(self.home / "etc"))
        lines = self.run(*postcat, "-e", str(path)).splitlines()
        recipients = tuple(line.split(":", 1)[1].strip() for line in lines if line.startswith("recipient:"))
        return recipients, self.run(*postcat, "-bh", str(path))

    def _prepare(self) -> Sequence[str]:
        known = dict.fromkeys((*self._accepts, *self._busy), "x")
        receiving = _RECEIVING.format(
            domains=" ".join(sorted({recipient.partition("@")[2] for recipient in known})),
            known=_inline(known),
            busy=_inline(dict.fromkeys(self._busy, "450 4.2.1 Mailbox busy") or {"nobody@": "DUNNO"}),
        )
        more = "".join(f"{name} = {value}\n" for name, value in self._parameters.items())
        return self._configure(receiving + more, _MASTER.format(address=self.address, port=self.port))


def _inline(table: Mapping[str, str]) -> str:
    """Write a lookup table as Postfix reads it in a parameter. Source: inline_table(5)."""
    return "inline:{" + ", ".join(f"{{{key} = {value}}}" for key, value in table.items()) + "}"
