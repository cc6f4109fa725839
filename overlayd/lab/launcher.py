"""Launches a lab from the host, and holds its lifeline."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from overlayd.lab.blueprint import search_path
from overlayd.lab.client import END_PATIENCE, RunningLab, find_lab
from overlayd.lab.control import LabError
from overlayd.lab.lifeline import DETACH, LaunchFailed, Progress, Up, decode
from overlayd.lab.model import LabSpec
from overlayd.lab.snapshot import LabSnapshot

PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "env": "coreutils"}
"""Programs that a lab needs, and the Debian package of each."""


class NotLaunched(LabError):
    """The lab did not come up; `log` has the last lines of the process that failed."""

    def __init__(self, reason: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.log = log


@dataclass(frozen=True)
class HeldLab:
    """A lab that is up; it ends with the calling process at the latest, unless `leave` detaches it."""

    lab: RunningLab
    snapshot: LabSnapshot
    _lifeline: socket.socket
    _parent: subprocess.Popen[bytes]

    def leave(self) -> NoReturn:
        """Detach the lab, and end this process with status 0.

        The process exits at once, without running any cleanup: a command that is interrupted after it detached
        the lab would report a failure and yet leave a lab behind.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        self._lifeline.sendall(DETACH)
        self._parent.kill()  # it only waits for the holder; init does so from now on
        os._exit(0)


@contextmanager
def launched(spec: LabSpec, on_progress: Callable[[Progress], None]) -> Generator[HeldLab]:
    """Launch a lab and wait until it has converged; it is gone at the end of the block, whatever happens there.

    Raises LabError, NotLaunched among them.
    """
    check_programs()
    lifeline, theirs = socket.socketpair()
    holder = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "overlayd.lab.holder"),  # -P: import nothing from the working directory
            *(msgspec.json.encode(spec).decode(), str(theirs.fileno())),
        ],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process; the lifeline tells the holder
    )
    theirs.close()
    try:
        snapshot = wait_up(lifeline, on_progress)
        yield HeldLab(find_lab(spec.name), snapshot, lifeline, holder)
    finally:
        lifeline.close()
        try:
            holder.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:  # a holder that is stopped does not see the lifeline end
            find_lab(spec.name).end()
            holder.wait()


def wait_up(lifeline: socket.socket, on_progress: Callable[[Progress], None]) -> LabSnapshot:
    """Read the holder's progress until the lab is up.  Raises NotLaunched."""
    with lifeline.makefile("rb") as lines:
        for line in lines:
            match decode(line):
                case Progress() as progress:
                    on_progress(progress)
                case Up(snapshot):
                    return snapshot
                case LaunchFailed(reason, log):
                    raise NotLaunched(reason, log)
    raise NotLaunched("the lab ended before it was up")


def check_programs() -> None:
    """Check that the programs of a lab are installed.  Raises LabError, which names the missing package."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=search_path(os.environ)) is None:
            raise LabError(f"a lab needs the program {program!r}: install the package {package}")
