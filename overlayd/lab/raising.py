"""Making a lab from the host's side, and holding its lifeline."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from overlayd.lab.control import LabError
from overlayd.lab.facts import Facts
from overlayd.lab.lifeline import DETACH, Failed, Progress, Up, decode
from overlayd.lab.model import LabSpec
from overlayd.lab.running import RunningLab, find_lab

PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "env": "coreutils"}
"""What a lab needs of the system, and the package that brings it."""


class NotRaised(LabError):
    """The lab did not come up; `log` are the last lines of whoever is to blame."""

    def __init__(self, reason: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.log = log


@dataclass
class HeldLab:
    """A lab that is up, and that goes when the caller does, unless it is detached."""

    lab: RunningLab
    facts: Facts
    _lifeline: socket.socket
    detached: bool = False

    def detach(self) -> None:
        self._lifeline.sendall(DETACH)
        self.detached = True


@contextmanager
def raised(spec: LabSpec, on_progress: Callable[[Progress], None]) -> Generator[HeldLab]:
    """A lab, up and converged.  At the end of the block it is gone, whatever happened in it, except for a
    detached one.  Raises LabError, NotRaised among them."""
    check_programs()
    lifeline, theirs = socket.socketpair()
    holder = subprocess.Popen(
        [
            *(sys.executable, "-m", "overlayd.lab.holder"),
            *(msgspec.json.encode(spec).decode(), str(theirs.fileno())),
        ],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: the lifeline is how the holder learns of it
    )
    theirs.close()
    held: HeldLab | None = None
    try:
        facts = wait_up(lifeline, on_progress)
        held = HeldLab(find_lab(spec.name), facts, lifeline)
        yield held
    finally:
        lifeline.close()
        if held is not None and held.detached:
            holder.kill()  # it only waited for the lab, which init inherits now
        holder.wait()


def wait_up(lifeline: socket.socket, on_progress: Callable[[Progress], None]) -> Facts:
    """Listen to the holder's news until the lab is up.  Raises NotRaised."""
    with lifeline.makefile("rb") as lines:
        for line in lines:
            match decode(line):
                case Progress() as progress:
                    on_progress(progress)
                case Up(facts):
                    return facts
                case Failed(reason, log):
                    raise NotRaised(reason, log)
    raise NotRaised("the lab ended before it was up")


def check_programs() -> None:
    """Raises LabError naming what has to be installed."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise LabError(f"a lab needs the program {program!r}: install the package {package}")
