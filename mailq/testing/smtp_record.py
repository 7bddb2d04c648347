"""What a scripted SMTP server remembers; safe to read and write from any thread."""

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

from mailq.testing.smtp_scripts import Script


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message that the server took responsibility for.

    Attributes:
        connection: Number of the connection, from 1.
        sender: Without angle brackets; empty for the null sender.
        recipients: Those it took, in RCPT order.
        content: As received, doubled dots undone.
        mail_parameters: What followed the sender, such as ``SIZE=300 BODY=8BITMIME``.
        rcpt_parameters: The same of each recipient, in the order of *recipients*.
        encrypted: It came through TLS.
    """

    connection: int
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    mail_parameters: str = ""
    rcpt_parameters: tuple[str, ...] = ()
    encrypted: bool = False


class ServerRecord:
    """Deliveries, commands and open connections of one server."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []
        self._commands: dict[int, list[str]] = {}
        self._open: dict[int, socket.socket] = {}
        self._peak = 0
        self._uses: dict[tuple[int, str], int] = {}
        # Held, so that no later script gets the identity that an earlier one's uses are counted under.
        self._scripts: list[Script] = []

    @property
    def deliveries(self) -> list[Delivery]:
        """Every message taken so far, oldest first."""
        with self._changed:
            return list(self._deliveries)

    @property
    def commands(self) -> dict[int, list[str]]:
        """Every command line by number of connection; ``.`` stands for the end of the content."""
        with self._changed:
            return {number: list(lines) for number, lines in self._commands.items()}

    @property
    def connections(self) -> int:
        """How many connections there have been."""
        with self._changed:
            return len(self._commands)

    @property
    def open_sessions(self) -> int:
        """How many connections there are now."""
        with self._changed:
            return len(self._open)

    @property
    def peak_sessions(self) -> int:
        """The most connections there were at a time."""
        with self._changed:
            return self._peak

    def verbs(self, connection: int = 1) -> list[str]:
        """Return one connection's verbs, upper case, in order: ``["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]``."""
        with self._changed:
            return [line.split(" ", 1)[0].upper() for line in self._commands.get(connection, [])]

    def wait_for(self, deliveries: int, *, timeout_seconds: float = 10.0) -> list[Delivery]:
        """Return the deliveries as soon as there are that many.

        Raises:
            TimeoutError: There were fewer after *timeout_seconds*.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._deliveries) >= deliveries, timeout_seconds):
                raise TimeoutError(f"{len(self._deliveries)} of {deliveries} deliveries after {timeout_seconds} s")
            return list(self._deliveries)

    def wait_until_idle(self, *, timeout_seconds: float = 10.0) -> None:
        """Return when no connection is open.

        Raises:
            TimeoutError: One was still open after *timeout_seconds*.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, timeout_seconds):
                raise TimeoutError(f"{len(self._open)} connections still open after {timeout_seconds} s")

    def connection_opened(self, connected: socket.socket) -> int:
        """Note a new connection and return its number."""
        with self._changed:
            number = len(self._commands) + 1
            self._commands[number] = []
            self._open[number] = connected
            self._peak = max(self._peak, len(self._open))
            return number

    def connection_encrypted(self, number: int, encrypted: socket.socket) -> None:
        """Note that another socket object stands for the connection now."""
        with self._changed:
            self._open[number] = encrypted

    def connection_closed(self, number: int) -> None:
        """Note the end of a connection."""
        with self._changed:
            self._open.pop(number, None)
            self._changed.notify_all()

    def command_received(self, number: int, line: str) -> None:
        """Note a command line."""
        with self._changed:
            self._commands[number].append(line)

    def message_taken(self, delivery: Delivery) -> None:
        """Note a message taken, and wake who waits for it."""
        with self._changed:
            self._deliveries.append(delivery)
            self._changed.notify_all()

    def choose(self, script: Script, field: str, argument: str) -> str:
        """Return what *script* answers now; empty where it leaves the answer to the server."""
        answer = getattr(script, field)
        if callable(answer):
            return str(answer(argument))
        if isinstance(answer, str):
            return answer
        with self._changed:
            if not any(known is script for known in self._scripts):
                self._scripts.append(script)
            use = self._uses.get((id(script), field), 0)
            self._uses[id(script), field] = use + 1
        return str(answer[min(use, len(answer) - 1)])

    def hang_up(self) -> None:
        """Break every open connection, so that no thread waits for a client any more."""
        with self._changed:
            for connected in self._open.values():
                with suppress(OSError):
                    # Not the method of a TLS socket: whoever still reads would take what is encrypted for words.
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)
