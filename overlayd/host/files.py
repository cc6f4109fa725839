"""Small files that others read: written whole or not at all, and read only where they are files."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, text: str | Callable[[int], str], mode: int = 0o644) -> None:
    """Replace `path` by a file with this text; a reader sees the old or the new one, after a power loss, too.

    A text that must tell the inode it stands in is given as a function of it.  Raises OSError and leaves no
    temporary file behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text if isinstance(text, str) else text(os.fstat(descriptor).st_ino))
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make a rename in it durable: without this a crash may leave the new name with an empty file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such notion
            raise
    finally:
        os.close(descriptor)


def find_bytes(path: Path) -> bytes | None:
    """Read a file, None if there is none.  Raises OSError, also for what is no regular file: a FIFO would hang."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return file.read()


def find_text(path: Path) -> str | None:
    """Read a file of text, None if there is none.  Raises OSError, and UnicodeDecodeError for what is no UTF-8."""
    found = find_bytes(path)
    return None if found is None else found.decode()
