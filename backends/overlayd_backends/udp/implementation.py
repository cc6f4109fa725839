"""Which of the two datapaths runs, C or Python, and how one is joined to a TUN device and a UDP socket.

The C one is a part of the package that may be absent: where no compiler was there when overlayd was installed, the
Python one does the same, only slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from ipaddress import IPv4Address
from typing import Protocol

from overlayd.core.kernel.datapath import Datapath, DatapathUnavailableError
from overlayd_backends.udp.device import Levels, TunOffload, attach_tun, open_udp
from overlayd_backends.udp.engine import PythonEngine
from overlayd_backends.udp.python_loop import PythonLoop

_EXTENSION = "overlayd_backends.udp._datapath"


class Loop(Protocol):
    """A packet loop that is attached: to a TUN device, a UDP socket and an eventfd, `stop_fd`.

    `run_tx` and `run_rx` are to be called once each, in a thread of their own; they return once `stop_fd` is
    readable, and raise OSError where they can't go on.
    """

    def run_tx(self) -> None: ...

    def run_rx(self) -> None: ...

    def replace(self, packed_table: bytes) -> None:
        """Replace the whole table, packed; from any thread.  ValueError where it is malformed."""
        ...

    def counters(self) -> dict[str, int]:
        """Return the counters by the names of docs/datapath.md, drops as `drop_<reason>`; from any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Attached:
    loop: Loop
    offloads: tuple[str, ...]
    """Those in use, by name."""


MakeLoop = Callable[[Levels, int, int, int], Loop]
"""From the levels in use, the descriptors of TUN device and UDP socket, and `stop_fd`."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """`name` is `c` or `python`, `reason` why it was chosen; `wanted` are the most offloads to use."""

    name: str
    reason: str
    make_loop: MakeLoop
    wanted: Levels = field(default_factory=Levels)

    @contextmanager
    def attach(self, datapath: Datapath, stop_fd: int) -> Iterator[Attached]:
        """Provide a loop that is ready to run.  Its threads must have ended before the context closes its
        descriptors.

        Raises OSError where the device is not there or another process has it, or the port is taken.
        """
        assert isinstance(datapath.local, IPv4Address)
        udp, levels = open_udp(datapath.local, datapath.port, self.wanted)
        with udp:
            tun, offload = attach_tun(datapath.link, self.wanted.tun)
            try:
                levels = Levels(offload, levels.udp_segment, levels.udp_gro)
                yield Attached(self.make_loop(levels, tun, udp.fileno(), stop_fd), levels.names)
            finally:
                os.close(tun)


def choose_implementation(wanted: str | None) -> Implementation:
    """Choose `c`, `python`, or by None C if it is there.  Raises DatapathUnavailableError where `c` is missing."""
    if wanted == "python":
        return Implementation("python", "it was asked for", _make_python_loop)
    try:
        extension = import_module(_EXTENSION)
    except ImportError as error:
        if wanted == "c":
            raise DatapathUnavailableError(
                f"the C datapath is missing ({error}): run with --datapath python, or install overlayd "
                "again with a C compiler and Python's headers (apt-get install gcc python3-dev)"
            ) from error
        return Implementation("python", f"the C datapath is missing ({error})", _make_python_loop)

    def make_c_loop(levels: Levels, tun_fd: int, udp_fd: int, stop_fd: int) -> Loop:
        loop: Loop = extension.Loop(extension.Engine(*_engine_options(levels)), tun_fd, udp_fd, stop_fd)
        return loop

    return Implementation("c", "it was asked for" if wanted else "it is there, and the faster one", make_c_loop)


def _make_python_loop(levels: Levels, tun_fd: int, udp_fd: int, stop_fd: int) -> Loop:
    return PythonLoop(PythonEngine(*_engine_options(levels)), tun_fd, udp_fd, stop_fd)


def _engine_options(levels: Levels) -> tuple[bool, bool, bool, bool]:
    """Return the offloads that an engine may use, in the order of its arguments."""
    return (
        levels.tun > TunOffload.NONE,
        levels.udp_segment,
        levels.tun >= TunOffload.TSO,
        levels.tun >= TunOffload.USO,
    )
