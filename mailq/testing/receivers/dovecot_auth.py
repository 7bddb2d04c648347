"""Dovecot's authentication service on a UNIX-domain socket: it decides log-ins for Postfix.

It knows passwords in the clear, so that every mechanism can be used, and takes
access tokens that are signed with a key made here.
"""

import base64
import hashlib
import hmac
import json
import secrets
import shutil
import socket
import time
from collections.abc import Mapping, Sequence

from mailq.testing.receivers.daemon import Daemon, find_program

_CONFIGURATION = """\
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/dovecot.log
protocols =
ssl = no
hostname = dovecot.test
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = daemon
first_valid_uid = 1
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 oauthbearer xoauth2
auth_failure_delay = 0
disable_plaintext_auth = no
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {home}/oauth2.conf
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
  args = {home}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={home}
}}
service auth {{
  unix_listener {home}/auth {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
  # Refusals shall not slow down what comes from the same address afterwards.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""

_OAUTH2 = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={home}/keys/
username_attribute = sub
"""


class DovecotAuth(Daemon):
    """A Dovecot that knows some passwords, and the users of its tokens.

    Args:
        passwords: By user.

    Raises:
        ReceiverMissingError: No Dovecot here.
    """

    package = "dovecot-core"

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._dovecot = find_program("usr/sbin/dovecot", package=self.package)
        find_program("usr/lib/dovecot/auth", package=self.package)
        self._passwords = dict(passwords)
        self._key = secrets.token_bytes(32)
        super().__init__()

    @property
    def path(self) -> str:
        """Path of its socket, for ``smtpd_sasl_path``."""
        return str(self.home / "auth")

    def token(self, user: str, *, seconds: float = 3600) -> str:
        """Return an access token of *user* that holds for *seconds* from now; negative: it is over."""
        now = int(time.time())
        claims = {"sub": user, "iat": now - 7200, "nbf": now - 7200, "exp": now + int(seconds)}
        signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
        signature = hmac.new(self._key, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{_base64url(signature)}"

    def _listens_at(self) -> str:
        return self.path

    def _greets(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            try:
                probe.connect(self.path)
                return probe.recv(7) == b"VERSION"
            except OSError:
                return False

    def _prepare(self) -> Sequence[str]:
        configuration = self.home / "dovecot.conf"
        configuration.write_text(_CONFIGURATION.format(home=self.home))
        (self.home / "oauth2.conf").write_text(_OAUTH2.format(home=self.home))
        # In base64, because a colon would end the password.
        known = {user: base64.b64encode(password.encode()).decode() for user, password in self._passwords.items()}
        (self.home / "users").write_text("".join(f"{user}:{{plain.b64}}{text}\n" for user, text in known.items()))
        keys = self.home / "keys" / "default" / "HS256"
        keys.mkdir(parents=True)
        (keys / "default").write_text(base64.b64encode(self._key).decode())
        (self.home / "run").mkdir()
        shutil.chown(self.home / "run", "nobody", "nogroup")
        return [str(self._dovecot), "-F", "-c", str(configuration)]


def _part(value: Mapping[str, object]) -> str:
    return _base64url(json.dumps(value).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
