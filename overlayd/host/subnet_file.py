"""subnet.env: what the CNI plugin reads to give pods their addresses.

It is compared with what it should say each time, so a file that somebody removed or edited comes back.
"""

from __future__ import annotations

from pathlib import Path

from overlayd.core.network.addresses import Subnet
from overlayd.core.publish.subnet_env import SubnetEnvError, parse_subnet_env
from overlayd.core.status.problem import Problem
from overlayd.host.files import find_bytes, find_text, write_atomically


class SubnetFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def find_subnet(self) -> Subnet | None:
        """Find the subnet that the file names, None if there is no file or it can't be read."""
        try:
            text = find_text(self._path)
            return parse_subnet_env(text) if text is not None else None
        except (OSError, UnicodeDecodeError, SubnetEnvError):
            return None

    def ensure(self, text: str | None) -> tuple[Problem, ...]:
        """Let the file say `text`, or not exist for None; the problem that kept it from that."""
        try:
            if text is None:
                self._path.unlink(missing_ok=True)
            elif find_bytes(self._path) != text.encode():
                write_atomically(self._path, text)
        except OSError as error:
            return (
                Problem(
                    "subnet-file-unwritable",
                    f"{self._path} can't be written: {error.strerror}",
                    "New pods need it: make the directory writable, or choose another with --subnet-file",
                ),
            )
        return ()
