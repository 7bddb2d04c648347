"""Dovecot's LMTP server on a UNIX-domain socket: mailboxes, one of them too full."""

import shutil
from collections.abc import Collection, Sequence

from mailq.testing.receivers.daemon import Daemon, find_program

_USER = "nobody"
_GROUP = "nogroup"

_CONFIGURATION = """\
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/dovecot.log
protocols = lmtp
ssl = no
hostname = dovecot.test
default_internal_user = {user}
default_internal_group = {group}
default_login_user = daemon
first_valid_uid = 1
mail_uid = {user}
mail_gid = {group}
mail_home = {home}/mail/%n
mail_location = maildir:~/Maildir
mail_plugins = quota
auth_username_format = %Ln
passdb {{
  driver = passwd-file
  args = {home}/users
}}
userdb {{
  driver = passwd-file
  args = {home}/users
}}
plugin {{
  quota = dict:User quota::file:%h/dovecot-quota
  quota_rule = *:storage=1M
}}
service lmtp {{
  unix_listener {home}/lmtp {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


class DovecotLmtp(Daemon):
    """A Dovecot with one mailbox for each local part that it knows.

    Args:
        accepts: Local parts with room.
        full: Local parts over quota: accepted at RCPT, and answered 552 5.2.2 at the end of the content.
        broken: Local parts whose storage does not work: answered 451 at the end of the content.

    Raises:
        ReceiverMissingError: No Dovecot here.
    """

    package = "dovecot-lmtpd"

    def __init__(self, *, accepts: Collection[str], full: Collection[str] = (), broken: Collection[str] = ()) -> None:
        self._dovecot = find_program("usr/sbin/dovecot", package=self.package)
        find_program("usr/lib/dovecot/lmtp", package=self.package)
        self._accepts, self._full, self._broken = tuple(accepts), tuple(full), tuple(broken)
        super().__init__()

    @property
    def path(self) -> str:
        """Path of its socket."""
        return str(self.home / "lmtp")

    def mailbox(self, user: str) -> list[str]:
        """Return the content of each message in a mailbox, with the header lines that Dovecot adds."""
        return [path.read_text() for path in sorted((self.home / "mail" / user / "Maildir" / "new").glob("*"))]

    def _listens_at(self) -> str:
        return self.path

    def _prepare(self) -> Sequence[str]:
        configuration = self.home / "dovecot.conf"
        configuration.write_text(_CONFIGURATION.format(home=self.home, user=_USER, group=_GROUP))
        extra = dict.fromkeys(self._accepts, "")
        extra |= dict.fromkeys(self._full, "userdb_quota_rule=*:storage=1B")
        extra |= dict.fromkeys(self._broken, f"userdb_mail_location=maildir:{configuration}/none")
        users = [f"{name}:{{plain}}secret::::::{fields}\n" for name, fields in extra.items()]
        (self.home / "users").write_text("".join(users))
        for name in ("run", "mail"):
            (self.home / name).mkdir()
            shutil.chown(self.home / name, _USER, _GROUP)
        return [str(self._dovecot), "-F", "-c", str(configuration)]
