"""One life of the packet loop: a task with two threads, from attaching to detaching.

It ends in one of two ways, told to or dead, and both times the threads are waited for before the descriptors are
closed: a descriptor closed too early might by then be the number of some other file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack

import trio

from overlayd.core.kernel.datapath import Datapath
from overlayd_backends.udp.implementation import Attached
from overlayd_backends.udp.table import Table

Attach = Callable[[Datapath, int], AbstractContextManager[Attached]]
"""`Implementation.attach`, or what a test puts in its place."""


class ThreadEnded(Exception):
    """A thread of the loop came to its end without having been told to."""


class Session:
    """`began` by trio's clock.  Whoever makes one must let it `run`, which gives its descriptors back."""

    def __init__(self, datapath: Datapath, attach: Attach) -> None:
        """Attaches; raises OSError where that is not possible."""
        with ExitStack() as stack:
            self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._stop_fd)
            self._attached = stack.enter_context(attach(datapath, self._stop_fd))
            self._resources = stack.pop_all()
        self.began = trio.current_time()
        self._scope = trio.CancelScope()
        self._is_ending = False

    @property
    def offloads(self) -> tuple[str, ...]:
        return self._attached.offloads

    def counters(self) -> Mapping[str, int]:
        return self._attached.loop.counters()

    def replace(self, table: Table) -> None:
        self._attached.loop.replace(table.packed())

    async def run(self) -> None:
        """Run until told to stop; raises, in a group, the errors of which threads died."""
        with self._resources, self._scope:
            async with trio.open_nursery() as threads:
                threads.start_soon(self._run_thread, self._attached.loop.run_tx, "tx")
                threads.start_soon(self._run_thread, self._attached.loop.run_rx, "rx")
                try:
                    await trio.sleep_forever()
                finally:  # also when one of the two died: the other has to end as well
                    self._is_ending = True
                    os.eventfd_write(self._stop_fd, 1)

    async def _run_thread(self, call: Callable[[], None], name: str) -> None:
        await trio.to_thread.run_sync(call, limiter=trio.CapacityLimiter(1), thread_name=f"datapath {name}")
        if not self._is_ending:
            raise ThreadEnded(f"its {name} thread ended by itself")

    def stop(self) -> None:
        """Let `run` come to its end, which it does once the threads have."""
        self._scope.cancel()
