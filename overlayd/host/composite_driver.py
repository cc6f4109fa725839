"""The kernel's driver and all others behind one, so that the reconciler need not know of several.

A datapath has the items of one device: the one called `ovl.` and the name of its entry point.  A packet filter has
all items of its kinds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import trio

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.firewall.iptables import ForwardRules
from overlayd.core.firewall.nftables import NftChain, NftTable, Sender
from overlayd.core.kernel.datapath import DatapathDriver, DatapathReport, OpenDatapath
from overlayd.core.kernel.driver import Driver, Failure, Hints, Operation, Scope
from overlayd.core.kernel.items import Datapath, Encap, Item, KernelState
from overlayd.host.firewall_conflicts import no_foreign_firewalls, open_foreign_firewall_reader
from overlayd.host.netlink.driver import open_netlink_driver
from overlayd.host.nft.driver import open_nft
from overlayd.host.persistent_datapath import PersistentDatapath


@asynccontextmanager
async def open_composite_driver(
    installed: Mapping[str, OpenDatapath], implementation: str | None, run_dir: Path | None
) -> AsyncGenerator[CompositeDriver, None]:
    """Open this host's kernel, its packet filters, and the `installed` datapaths, by the device that each serves.

    `implementation`: `c` or `python`, None for the better one that is there.  `run_dir`: where to keep what the
    datapaths were last asked for, None for nowhere.
    Raises DatapathUnavailableError.
    """
    async with AsyncExitStack() as stack:
        opening = {link: open_one(implementation) for link, open_one in installed.items()}
        datapaths = {link: await stack.enter_async_context(one) for link, one in opening.items()}
        if run_dir is not None:
            for link, inner in datapaths.items():
                remembered = PersistentDatapath(inner, run_dir / f"{link}.json")
                await remembered.resume()
                datapaths[link] = remembered
        nft = stack.enter_context(open_nft())
        iptables, others = stack.enter_context(open_foreign_firewall_reader())
        filters: dict[type[Item], Driver] = {NftTable: nft, NftChain: nft, Sender: nft, ForwardRules: iptables}
        kernel = await stack.enter_async_context(open_netlink_driver())
        yield CompositeDriver(kernel, datapaths, filters, nft.read_drops, others.look)


class CompositeDriver:
    """`datapaths` by the device that each of them has, `filters` by the kinds of items; `read_drops` tells how
    many packets the kernel's filter has dropped for us, by reason, and `look_at_others` who else has a firewall
    here; both raise OSError."""

    def __init__(
        self,
        kernel: Driver,
        datapaths: Mapping[str, DatapathDriver],
        filters: Mapping[type[Item], Driver] = MappingProxyType({}),
        read_drops: Callable[[], Mapping[str, int]] = dict,
        look_at_others: Callable[[], Awaitable[ForeignFirewalls]] = no_foreign_firewalls,
    ) -> None:
        self._kernel = kernel
        self._datapaths = datapaths
        self._filters = filters
        self.read_drops = read_drops
        self.look_at_others = look_at_others

    async def observe(self, scope: Scope) -> KernelState:
        """A datapath whose device is gone is not attached to anything, even if it hasn't noticed yet."""
        state = await self._kernel.observe(scope)
        for link, datapath in self._datapaths.items():
            if ("link", link) in state.by_key:
                state |= await datapath.observe(scope)
        for packet_filter in set(self._filters.values()):
            state |= await packet_filter.observe(scope)
        return state

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        outcomes: list[Failure | None] = [None] * len(operations)
        by_side: dict[Driver, dict[int, Operation]] = {}
        for position, operation in enumerate(operations):
            by_side.setdefault(self._side(operation.item), {})[position] = operation
        for driver, part in by_side.items():
            for position, outcome in zip(part, await driver.apply(list(part.values())), strict=True):
                outcomes[position] = outcome
        return tuple(outcomes)

    def _side(self, item: Item) -> Driver:
        """Who has this item: the kernel, which refuses what nobody has, unless somebody else does."""
        if isinstance(item, Datapath | Encap) and item.link in self._datapaths:
            return self._datapaths[item.link]
        return self._filters.get(type(item), self._kernel)

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[Hints, None]:
        async with AsyncExitStack() as stack:
            sources = [self._kernel, *self._datapaths.values(), *set(self._filters.values())]
            yield _CompositeHints([await stack.enter_async_context(source.changes()) for source in sources])

    def report(self) -> DatapathReport | None:
        """Of the datapath that is asked for, None if none is."""
        reports = (datapath.report() for datapath in self._datapaths.values())
        return next((report for report in reports if report is not None), None)


class _CompositeHints:
    def __init__(self, hints: Sequence[Hints]) -> None:
        self._hints = hints

    async def wait(self) -> None:
        async def wait_one(hints: Hints) -> None:
            await hints.wait()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for hints in self._hints:
                nursery.start_soon(wait_one, hints)
