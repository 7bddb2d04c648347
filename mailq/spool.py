"""Opening large messages for the queue: where they are read from, and the file that holds them until they are in it.

The file has no name and is gone with the process: what was not committed was never sent.
"""

from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from mailq.errors import ContentError
from mailq.large_content import Spool


def open_spool(content: BinaryIO | PathLike[str] | str, files: ExitStack) -> Spool:
    """Open *content*, which stays open as long as *files*; a file that is open already stays the caller's.

    Raises:
        ContentError: It cannot be opened.
    """
    source: BinaryIO
    if isinstance(content, str | PathLike):
        try:
            source = files.enter_context(Path(content).open("rb"))  # noqa: SIM115 - closed with *files*
        except OSError as error:
            raise ContentError(f"{content}: {error.strerror}") from error
    else:
        source = content
    return Spool(source, files.enter_context(TemporaryFile()))
