"""Small files that others read: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, text: str | Callable[[int], str], mode: int = 0o644) -> None:
    """Replace `path` by a file with this text; a reader sees the old or the new one.  A text that must tell the
    inode it stands in is given as a function of it.  Raises OSError and leaves no temporary file behind."""
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


def find_text(path: Path) -> str | None:
    """The file's text, None if there is no such file."""
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
