"""The datapath as a driver: it runs while its item is desired, and its table is what the entries say.

One that died is not started again from here.  It is no longer observed, so the reconciler adds it again, as it
would add a route that was deleted; this driver only refuses that while it dies again and again.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from overlayd.core.kernel.datapath import Datapath, DatapathReport, Encap
from overlayd.core.kernel.driver import (
    ALL,
    DevicePattern,
    Driver,
    Failure,
    Keys,
    OnChange,
    Operation,
    Scope,
    Verb,
    Watchers,
)
from overlayd.core.kernel.items import KernelState, TunKind
from overlayd.core.network.addresses import IPNetwork
from overlayd_backends.udp.implementation import Implementation, choose_implementation
from overlayd_backends.udp.restart_backoff import RestartBackoff
from overlayd_backends.udp.session import Attach, Session, ThreadEnded
from overlayd_backends.udp.table import Table

TUN_DEVICE = DevicePattern(r"ovl\.udp", TunKind.word)
_DROP = "drop_"
"""What the names of those counters begin with that count drops."""

log = logging.getLogger("overlayd.datapath")


@asynccontextmanager
async def open_datapath(implementation: str | None) -> AsyncGenerator[Driver, None]:
    """See `overlayd.core.kernel.driver.OpenDriver`."""
    chosen = choose_implementation(implementation)
    async with open_driver(chosen, chosen.attach) as driver:
        yield driver


@asynccontextmanager
async def open_driver(chosen: Implementation, attach: Attach) -> AsyncGenerator[Driver, None]:
    """Open the driver of this implementation, attached by `attach`.  At the end all threads are waited for."""
    async with trio.open_nursery() as nursery:
        yield _Driver(nursery, chosen, attach)
        nursery.cancel_scope.cancel()


class _Driver(Driver):
    kinds = frozenset({Datapath, Encap})
    devices = (TUN_DEVICE,)
    is_volatile = True

    def __init__(self, nursery: trio.Nursery, chosen: Implementation, attach: Attach) -> None:
        self._nursery = nursery
        self._chosen = chosen
        self._attach = attach
        self._datapath: Datapath | None = None
        """What was asked for last, whether or not it runs."""
        self._encaps: dict[IPNetwork, Encap] = {}
        self._life: Session | None = None
        self._ended = trio.Event()
        """Of the present life, or of the last one."""
        self._lives = RestartBackoff()
        self._past: Counter[str] = Counter()
        """What was counted in the lives that ended."""
        self._watchers = Watchers()

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        await trio.lowlevel.checkpoint()
        if self._life is None or self._datapath is None:
            return KernelState()
        return KernelState.of([self._datapath, *self._encaps.values()])

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        await trio.lowlevel.checkpoint()
        outcomes: list[Failure | None] = [None] * len(operations)
        entries: dict[int, Operation] = {}
        for position, operation in enumerate(operations):
            if isinstance(operation.item, Encap):
                entries[position] = operation
            else:
                assert isinstance(operation.item, Datapath)
                outcomes[position] = await self._apply_datapath(operation.verb, operation.item)
        if entries and self._apply_encaps(entries.values()) is not None:
            # which of them it is that won't do shows when they are tried one by one
            for position, operation in entries.items():
                outcomes[position] = self._apply_encaps([operation])
        return tuple(outcomes)

    async def _apply_datapath(self, verb: Verb, datapath: Datapath) -> Failure | None:
        if verb is Verb.REMOVE:
            await self._stop()
            self._datapath, self._encaps = None, {}
            return None
        if not TUN_DEVICE.fits(datapath.link, TunKind.word):
            return Failure(errno.EINVAL, f"the udp datapath has no device of the name {datapath.link}")
        try:
            table = Table.of(datapath, self._encaps.values())
        except ValueError as error:
            return Failure(errno.EINVAL, str(error))
        before, self._datapath = self._datapath, datapath
        if verb is Verb.CHANGE and self._life is not None and not _is_moved(before, datapath):
            self._life.replace(table)
            return None
        await self._stop()
        failure = self._start(datapath)
        if failure is not None:  # by the next attempt they may be another's
            self._encaps = {}
        return failure

    def _start(self, datapath: Datapath) -> Failure | None:
        if trio.current_time() < self._lives.next_at:
            return Failure(errno.EAGAIN, f"it stopped ({self._lives.trouble}) and is to be started again soon")
        try:
            life = Session(datapath, self._attach)
        except OSError as error:
            return Failure(error.errno or errno.EIO, _reason(error, datapath))
        life.replace(Table.of(datapath, self._encaps.values()))
        self._life, self._ended = life, trio.Event()
        self._nursery.start_soon(self._live, life)
        return None

    async def _live(self, life: Session) -> None:
        trouble = ""
        try:
            await life.run()
        except* (OSError, ThreadEnded) as group:
            trouble = str(_first(group))
            log.warning("datapath stopped", extra={"reason": trouble})
        except* Exception as group:
            # A bug in the packet path must not take the control of the node along; it is told in full.
            trouble = repr(_first(group))
            log.exception("datapath stopped")
        finally:
            self._past.update(life.counters())
            self._life = None
            self._ended.set()
        if trouble:
            self._lives = self._lives.after(life.began, trio.current_time(), trouble)
            lost = [*self._encaps.values(), *([self._datapath] if self._datapath is not None else [])]
            self._encaps = {}
            self._watchers.tell(frozenset(item.key for item in lost))

    async def _stop(self) -> None:
        """Return when no thread runs and no descriptor is open."""
        if self._life is not None:
            self._life.stop()
            await self._ended.wait()

    def _apply_encaps(self, operations: Iterable[Operation]) -> Failure | None:
        """Apply all of them, or none."""
        encaps = dict(self._encaps)
        for operation in operations:
            assert isinstance(operation.item, Encap)
            if operation.verb is Verb.REMOVE:
                encaps.pop(operation.item.prefix, None)
            elif self._life is None:
                return Failure(errno.ENOTCONN, f"no datapath runs on {operation.item.link}")
            else:
                encaps[operation.item.prefix] = operation.item
        if self._life is None or self._datapath is None:
            return None
        try:
            table = Table.of(self._datapath, encaps.values())
        except ValueError as error:
            return Failure(errno.EINVAL, str(error))
        self._life.replace(table)
        self._encaps = encaps
        return None

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        with self._watchers.added(on_change):
            yield

    def report(self) -> DatapathReport | None:
        if self._datapath is None:
            return None
        counts = Counter(self._past)
        if self._life is not None:
            counts.update(self._life.counters())
        return DatapathReport(
            self._chosen.name,
            self._chosen.reason,
            self._life.offloads if self._life is not None else (),
            {name: count for name, count in counts.items() if not name.startswith(_DROP)},
            {name.removeprefix(_DROP): count for name, count in counts.items() if name.startswith(_DROP)},
            self._lives.trouble,
        )


def _is_moved(before: Datapath | None, after: Datapath) -> bool:
    """Tell whether it has to attach again: whether more than its table differs."""
    return before is None or (before.link, before.local, before.port) != (after.link, after.local, after.port)


def _reason(error: OSError, datapath: Datapath) -> str:
    if error.errno == errno.EADDRINUSE:
        port = datapath.port
        return f"another socket has UDP port {port}; this shows which: ss -ulnp 'sport = :{port}'"
    if error.errno == errno.EBUSY:
        return f"another process is attached to {datapath.link}: does another overlayd run here?"
    return error.strerror or str(error)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
