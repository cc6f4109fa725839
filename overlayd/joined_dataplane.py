"""The kernel's dataplane and all others behind one, so that the reconciler need not know of several.

A datapath has the items of one device: the one called `ovl.` and the name of its entry point.  A packet filter has
all items of its kinds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import trio

from overlayd.backends import load_datapaths
from overlayd.core.datapath import DatapathReport, UserspaceDataplane
from overlayd.core.dataplane import Dataplane, Failure, Hints, Operation, Scope
from overlayd.core.foreign_firewall import OtherFirewalls
from overlayd.core.iptables import ForwardRules
from overlayd.core.kernel import Datapath, Encap, Item, KernelState
from overlayd.core.nftables import NftChain, NftTable, Sender
from overlayd.host.dataplane import open_dataplane
from overlayd.host.foreign_firewall import nobody_else, open_foreign_firewalls
from overlayd.host.nft.dataplane import open_nft
from overlayd.remembered_datapath import RememberedDatapath


@asynccontextmanager
async def open_joined_dataplane(
    implementation: str | None, run_dir: Path | None
) -> AsyncGenerator[JoinedDataplane, None]:
    """This host's kernel and every datapath that is installed, `c` or `python` or, with None, the better one that
    is there; what they were last asked for is kept in `run_dir`, if one is given.

    Raises DatapathUnavailableError.
    """
    async with AsyncExitStack() as stack:
        opening = {link: open_one(implementation) for link, open_one in load_datapaths().items()}
        datapaths = {link: await stack.enter_async_context(one) for link, one in opening.items()}
        if run_dir is not None:
            for link, inner in datapaths.items():
                remembered = RememberedDatapath(inner, run_dir / f"{link}.json")
                await remembered.resume()
                datapaths[link] = remembered
        nft = stack.enter_context(open_nft())
        iptables, others = stack.enter_context(open_foreign_firewalls())
        filters: dict[type[Item], Dataplane] = {NftTable: nft, NftChain: nft, Sender: nft, ForwardRules: iptables}
        kernel = await stack.enter_async_context(open_dataplane())
        yield JoinedDataplane(kernel, datapaths, filters, nft.read_drops, others.look)


class JoinedDataplane:
    """`datapaths` by the device that each of them has, `filters` by the kinds of items; `read_drops` tells how
    many packets the kernel's filter has dropped for us, by reason, and `look_at_others` who else has a firewall
    here; both raise OSError."""

    def __init__(
        self,
        kernel: Dataplane,
        datapaths: Mapping[str, UserspaceDataplane],
        filters: Mapping[type[Item], Dataplane] = MappingProxyType({}),
        read_drops: Callable[[], Mapping[str, int]] = dict,
        look_at_others: Callable[[], Awaitable[OtherFirewalls]] = nobody_else,
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
        by_side: dict[Dataplane, dict[int, Operation]] = {}
        for position, operation in enumerate(operations):
            by_side.setdefault(self._side(operation.item), {})[position] = operation
        for dataplane, part in by_side.items():
            for position, outcome in zip(part, await dataplane.apply(list(part.values())), strict=True):
                outcomes[position] = outcome
        return tuple(outcomes)

    def _side(self, item: Item) -> Dataplane:
        """Who has this item: the kernel, which refuses what nobody has, unless somebody else does."""
        if isinstance(item, Datapath | Encap) and item.link in self._datapaths:
            return self._datapaths[item.link]
        return self._filters.get(type(item), self._kernel)

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[Hints, None]:
        async with AsyncExitStack() as stack:
            sources = [self._kernel, *self._datapaths.values(), *set(self._filters.values())]
            yield _JoinedHints([await stack.enter_async_context(source.changes()) for source in sources])

    def report(self) -> DatapathReport | None:
        """Of the datapath that is asked for, None if none is."""
        reports = (datapath.report() for datapath in self._datapaths.values())
        return next((report for report in reports if report is not None), None)


class _JoinedHints:
    def __init__(self, hints: Sequence[Hints]) -> None:
        self._hints = hints

    async def wait(self) -> None:
        async def wait_one(hints: Hints) -> None:
            await hints.wait()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for hints in self._hints:
                nursery.start_soon(wait_one, hints)
