"""The server's side of one SMTP or LMTP session, as a script wants it."""

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from mailq.testing.smtp_record import Delivery, ServerRecord
from mailq.testing.smtp_scripts import Script, split_action

_RECEIVE_BYTES: Final = 262_144
_END_OF_CONTENT: Final = b"\r\n.\r\n"
_DOUBLED_DOT: Final = re.compile(rb"(\A|\r\n)\.")
_PATH: Final = re.compile(r'(?:FROM|TO):\s*<((?:"(?:[^"\\]|\\.)*"|[^>"])*)>\s*(.*)', re.IGNORECASE)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_NOBODY: Final = "503 5.5.1 No valid recipients"


class _GoneError(Exception):
    """The connection has ended, by the client or by the script."""


@dataclass(slots=True)
class _Envelope:
    sender: str | None = None
    mail_parameters: str = ""
    recipients: list[tuple[str, str]] = field(default_factory=list)


class ServerSession:
    """Serves one connection until either side ends it.

    Args:
        record: Where everything is noted.
        number: Of the connection.
        connected: The accepted socket; closed at the end.
        script: The answers.
        lmtp: One reply to the content for every recipient.
        tls_context: None: STARTTLS is not offered.
        wrapper: TLS comes first.
        stopping: Set when the server ends, so that delays end too.
    """

    def __init__(
        self,
        record: ServerRecord,
        number: int,
        connected: socket.socket,
        script: Script,
        *,
        lmtp: bool,
        tls_context: ssl.SSLContext | None,
        wrapper: bool = False,
        stopping: threading.Event,
    ) -> None:
        self._record = record
        self._number = number
        self._socket = connected
        self._script = script
        self._lmtp = lmtp
        self._tls_context = tls_context
        self._wrapper = wrapper
        self._stopping = stopping
        self._encrypted = False
        self._received = bytearray()
        self._unsent = bytearray()
        self._envelope = _Envelope()
        self._handlers: Mapping[str, Callable[[str], object]] = {
            "EHLO": self._ehlo,
            "LHLO": self._ehlo,
            "HELO": self._helo,
            "STARTTLS": self._starttls,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "NOOP": lambda argument: self._answer("noop", argument),
            "QUIT": self._quit,
        }

    def run(self) -> None:
        """Serve until the end; trouble of the connection ends it without an error."""
        try:
            with suppress(_GoneError, OSError):
                if self._wrapper and self._tls_context is not None:
                    self._encrypt(self._tls_context)
                self._answer("greeting", default=f"220 {self._script.name} ESMTP")
                while True:
                    self._command(self._read_line())
        finally:
            self._socket.close()

    def _command(self, line: str) -> None:
        self._record.command_received(self._number, line)
        verb, _, argument = line.partition(" ")
        handler = self._handlers.get(verb.upper())
        if handler is None:
            self._answer("unknown", line)
        else:
            handler(argument)

    def _ehlo(self, argument: str) -> None:
        offered = [word for word in self._script.extensions if not (self._encrypted and word == "STARTTLS")]
        if self._tls_context is not None and not self._encrypted and "STARTTLS" not in offered:
            offered.append("STARTTLS")
        lines = [self._script.name, *offered]
        self._envelope = _Envelope()
        self._answer("ehlo", argument, default="\n".join([f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]))

    def _helo(self, argument: str) -> None:
        self._envelope = _Envelope()
        self._answer("helo", argument, default=f"250 {self._script.name}")

    def _starttls(self, argument: str) -> None:
        offer = "502 5.5.1 TLS is not available" if self._tls_context is None else "220 2.0.0 Ready to start TLS"
        if self._answer("starttls", argument, default=offer) and self._tls_context is not None:
            self._flush()
            self._encrypt(self._tls_context)

    def _encrypt(self, context: ssl.SSLContext) -> None:
        encrypted = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = encrypted
        self._record.connection_encrypted(self._number, encrypted)
        encrypted.do_handshake()
        self._received.clear()
        self._encrypted = True

    def _mail(self, argument: str) -> None:
        sender, parameters = _path(argument)
        self._envelope = _Envelope()
        if self._answer("mail", sender):
            self._envelope = _Envelope(sender, parameters)

    def _rcpt(self, argument: str) -> None:
        recipient, parameters = _path(argument)
        has_sender = self._envelope.sender is not None
        accepted = self._answer(
            "rcpt", recipient, default="250 2.1.5 Ok" if has_sender else "503 5.5.1 MAIL FROM comes first"
        )
        if accepted and has_sender:
            self._envelope.recipients.append((recipient, parameters))

    def _data(self, argument: str) -> None:
        default = "354 End data with <CR><LF>.<CR><LF>" if self._envelope.recipients else _NOBODY
        text = self._choose("data", argument, default)
        self._say(text)
        if text.startswith("3"):
            content = self._read_content()
            self._record.command_received(self._number, ".")
            self._take(content)
            self._envelope = _Envelope()

    def _take(self, content: bytes) -> None:
        addresses = [address for address, _ in self._envelope.recipients]
        asked = addresses if self._lmtp and addresses else [",".join(addresses)]
        default = "250 2.0.0 Ok: taken" if addresses else _NOBODY
        texts = [self._choose("dot", whom, default) for whom in asked]
        verdicts = texts if self._lmtp else texts * len(addresses)
        taken = [pair for pair, text in zip(self._envelope.recipients, verdicts, strict=False) if _positive(text)]
        if taken:
            # Noted before it is said: a client that has read the reply finds the delivery here.
            self._record.message_taken(
                Delivery(
                    connection=self._number,
                    sender=self._envelope.sender or "",
                    recipients=tuple(address for address, _ in taken),
                    content=content,
                    mail_parameters=self._envelope.mail_parameters,
                    rcpt_parameters=tuple(parameters for _, parameters in taken),
                    encrypted=self._encrypted,
                )
            )
        for text in texts:
            self._say(text)

    def _rset(self, argument: str) -> None:
        self._envelope = _Envelope()
        self._answer("rset", argument)

    def _quit(self, argument: str) -> None:
        self._answer("quit", argument)
        self._flush()
        raise _GoneError

    def _choose(self, name: str, argument: str, default: str) -> str:
        return self._record.choose(self._script, name, argument) or default

    def _answer(self, name: str, argument: str = "", *, default: str = "") -> bool:
        """Say the answer and return whether it was positive."""
        text = self._choose(name, argument, default)
        self._say(text)
        return _positive(text)

    def _say(self, text: str) -> None:
        words, action = split_action(text)
        if self._script.delay_seconds:
            self._flush()
            self._stopping.wait(self._script.delay_seconds)
        if words:
            self._unsent += "\r\n".join([*words.splitlines(), ""]).encode()
        if action:
            self._flush()
            self._act(action)

    def _act(self, action: str) -> None:
        if action == "stall":
            while self._socket.recv(_RECEIVE_BYTES):
                pass
        elif action == "garbage":
            self._socket.sendall(b"\x00\xffneither SMTP nor TLS\r\n")
        elif action == "rst":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        raise _GoneError

    def _flush(self) -> None:
        if self._unsent:
            self._socket.sendall(self._unsent)
            self._unsent.clear()

    def _receive(self) -> None:
        self._flush()
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise _GoneError
        self._received += data

    def _read_line(self) -> str:
        while (end := self._received.find(b"\n")) < 0:
            self._receive()
        line = bytes(self._received[:end]).rstrip(b"\r")
        del self._received[: end + 1]
        return line.decode("utf-8", "replace")

    def _read_content(self) -> bytes:
        """Read up to the final dot, and undo the doubling of dots."""
        interruption = self._script.during_content
        searched = 0
        while True:
            if interruption and len(self._received) >= self._script.during_content_after_bytes:
                interruption = ""
                self._answer("during_content")
            if self._received.startswith(_END_OF_CONTENT[2:]):
                del self._received[: len(_END_OF_CONTENT) - 2]
                return b""
            end = self._received.find(_END_OF_CONTENT, searched)
            if end >= 0:
                content = bytes(self._received[: end + 2])
                del self._received[: end + len(_END_OF_CONTENT)]
                return _DOUBLED_DOT.sub(rb"\1", content) if b"." in content else content
            searched = max(0, len(self._received) - len(_END_OF_CONTENT) + 1)
            self._receive()


def _path(argument: str) -> tuple[str, str]:
    """Return the address and the parameters of MAIL or RCPT; what is no path is its own address."""
    match = _PATH.match(argument)
    return (match[1], match[2]) if match else (argument, "")


def _positive(text: str) -> bool:
    lines = split_action(text)[0].splitlines()
    return bool(lines) and lines[-1].startswith("2")
