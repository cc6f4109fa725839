"""A packet loop without packets, which lives and dies as a test says."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from overlayd.core.kernel.datapath import Datapath
from overlayd.core.kernel.driver import Driver
from overlayd_backends.udp.device import Levels
from overlayd_backends.udp.driver import open_driver
from overlayd_backends.udp.implementation import Attached, Implementation, Loop


class FakeLoop:
    """Obeys `overlayd_backends.udp.implementation.Loop`."""

    def __init__(self, datapath: Datapath, stop_fd: int) -> None:
        self.datapath = datapath
        self.tables: list[bytes] = []
        self.counts = {"tx_packets": 0, "rx_packets": 0, "drop_no_route": 0}
        self.running = 0
        self.closed = False
        self._stop_fd = stop_fd
        self._strike_fd = os.eventfd(0)
        self._death: Exception | None = None

    def run_tx(self) -> None:
        self._run(mortal=True)

    def run_rx(self) -> None:
        self._run(mortal=False)

    def _run(self, mortal: bool) -> None:
        self.running += 1
        try:
            ready, _, _ = select.select([self._stop_fd, *([self._strike_fd] if mortal else [])], [], [])
            if self._stop_fd not in ready and self._death is not None:
                raise self._death
        finally:
            self.running -= 1

    def replace(self, packed_table: bytes) -> None:
        self.tables.append(packed_table)

    def counters(self) -> dict[str, int]:
        return dict(self.counts)

    def strike(self, death: Exception | None) -> None:
        """Let one of its threads die of this, or of nothing at all: it just ends."""
        self._death = death
        os.eventfd_write(self._strike_fd, 1)

    def close(self) -> None:
        assert self.running == 0, "a thread runs while its descriptors are closed"
        os.close(self._strike_fd)
        self.closed = True


@dataclass
class FakeAttachment:
    """In place of `Implementation.attach`: every loop that was made, in order; `refuse` is raised instead."""

    loops: list[FakeLoop] = field(default_factory=list)
    refuse: OSError | None = None

    @contextmanager
    def __call__(self, datapath: Datapath, stop_fd: int) -> Iterator[Attached]:
        if self.refuse is not None:
            raise self.refuse
        loop = FakeLoop(datapath, stop_fd)
        self.loops.append(loop)
        try:
            yield Attached(loop, ("checksum",))
        finally:
            loop.close()

    @property
    def last(self) -> FakeLoop:
        return self.loops[-1]


@asynccontextmanager
async def open_fake_datapath() -> AsyncIterator[tuple[Driver, FakeAttachment]]:
    """The real driver, over loops that are not."""
    attachment = FakeAttachment()
    async with open_driver(Implementation("python", "for a test", _no_loop), attachment) as driver:
        yield driver, attachment
    assert all(loop.closed for loop in attachment.loops)


def _no_loop(levels: Levels, tun_fd: int, udp_fd: int, stop_fd: int) -> Loop:
    raise OSError(errno.ENOSYS, "it is attached by FakeAttachment")
