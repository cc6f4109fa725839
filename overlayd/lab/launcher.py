"""Making a lab from the host's side, and holding its lifeline."""

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
"""What a lab needs of the system, and the package that brings it."""


class NotLaunched(LabError):
    """The lab did not come up; `log` are the last lines of whoever is to blame."""

    def __init__(self, reason: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.log = log


@dataclass(frozen=True)
class HeldLab:
    """A lab that is up, and that goes when the calling process does, or earlier."""

    lab: RunningLab
    facts: LabSnapshot
    _lifeline: socket.socket
    _parent: subprocess.Popen[bytes]

    def leave(self) -> NoReturn:
        """Let the lab stay, and end this process with status 0.

        The two are one act, without the usual way out: a command that is interrupted after it let go of the
        lab would have failed and yet leave a lab behind.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        self._lifeline.sendall(DETACH)
        self._parent.kill()  # it only waits for the holder, which init does from now on
        os._exit(0)


@contextmanager
def launched(spec: LabSpec, on_progress: Callable[[Progress], None]) -> Generator[HeldLab]:
    """A lab, up and converged.  At the end of the block it is gone, whatever happened in it.  Raises LabError,
    NotLaunched among them."""
    check_programs()
    lifeline, theirs = socket.socketpair()
    holder = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "overlayd.lab.holder"),  # -P: no code from where the user stands
            *(msgspec.json.encode(spec).decode(), str(theirs.fileno())),
        ],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: the lifeline is how the holder learns of it
    )
    theirs.close()
    try:
        facts = wait_up(lifeline, on_progress)
        yield HeldLab(find_lab(spec.name), facts, lifeline, holder)
    finally:
        lifeline.close()
        try:
            holder.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:  # frozen, it doesn't see that the lifeline ended
            find_lab(spec.name).end()
            holder.wait()


def wait_up(lifeline: socket.socket, on_progress: Callable[[Progress], None]) -> LabSnapshot:
    """Listen to the holder's news until the lab is up.  Raises NotLaunched."""
    with lifeline.makefile("rb") as lines:
        for line in lines:
            match decode(line):
                case Progress() as progress:
                    on_progress(progress)
                case Up(facts):
                    return facts
                case LaunchFailed(reason, log):
                    raise NotLaunched(reason, log)
    raise NotLaunched("the lab ended before it was up")


def check_programs() -> None:
    """Raises LabError naming what has to be installed."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=search_path(os.environ)) is None:
            raise LabError(f"a lab needs the program {program!r}: install the package {package}")
