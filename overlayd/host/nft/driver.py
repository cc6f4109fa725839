"""The driver of what nft keeps: our table, its chains, and the senders in its set.

It remembers nothing but the last listing, and that is believed only as long as the kernel's generation says that
no transaction came after it.  What was written is read back at once.  A difference is a refusal, retried with
backoff, and no reason to write it again and again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio

from overlayd.core.firewall.nftables import COUNTERS, FAMILY, TABLE, TABLE_KEY, NftChain, NftTable, Sender
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope, Verb
from overlayd.core.kernel.items import Item, KernelState
from overlayd.host.netlink.connection import open_notifications, tell_changes
from overlayd.host.netlink.wire import Message
from overlayd.host.nft.listing import ListingError, parse_listing
from overlayd.host.nft.netfilter import (
    NETLINK_NETFILTER,
    NFNLGRP_NFTABLES,
    Netfilter,
    is_about_our_table,
    open_netfilter,
)
from overlayd.host.nft.program import failure, run_nft
from overlayd.host.nft.script import Part, assemble, plan_parts

_GONE = "No such file or directory"
_ROUNDS = 8
"""How often a script is shortened by what nft refuses.  It names all that the kernel refuses at once, but only
the first of what it refuses itself."""


class NftDriver(Driver):
    """Ours is the table `overlayd` of the family inet, whatever the scope."""

    kinds = frozenset({NftTable, NftChain, Sender})

    def __init__(self, netfilter: Netfilter | None, netns: str | None) -> None:
        self._netfilter = netfilter
        self._netns = netns
        self._listed: tuple[int, KernelState] | None = None

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        return await self._observe()

    async def _observe(self) -> KernelState:
        """Read our items; no process is started where there is no table, or where it is as it was."""
        generation = self._netfilter.find_generation() if self._netfilter is not None else None
        if self._netfilter is None or generation is None:
            return KernelState()
        if self._listed is None or self._listed[0] != generation:
            self._listed = (generation, await self._look(self._netfilter))
        return self._listed[1]

    async def _look(self, netfilter: Netfilter) -> KernelState:
        flags = netfilter.find_table_flags()
        if flags is None:
            return KernelState()
        if flags:
            return KernelState.of([NftTable(0, f"has flags {flags:#x}")])
        try:
            # numeric, as a host may have names of its own for marks (/etc/iproute2/rt_marks)
            ran = await run_nft(self._netns, "--json", "--numeric", "list", "table", FAMILY, TABLE)
            if ran.trouble:
                raise ListingError(f"nft says: {ran.trouble}")
            return parse_listing(ran.out)
        except (ListingError, OSError) as error:
            # what can't be listed is no more than odd: all that is not nft's is none the worse for it
            there = netfilter.find_table_flags() is not None
            return KernelState.of([NftTable(0, f"can't be listed: {error}")] if there else [])

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        """Apply all operations that nft accepts, in one transaction."""
        outcomes: list[Failure | None] = [None] * len(operations)
        try:
            refused = await self._write(plan_parts(operations, await self._observe()))
            there = await self._observe()
        except OSError as error:
            return (Failure(error.errno or 0, error.strerror or str(error)),) * len(operations)
        for number, operation in enumerate(operations):
            words = refused.get(number)
            if operation.verb is Verb.REMOVE:
                outcomes[number] = failure(words) if words not in (None, _GONE) else None
            else:
                outcomes[number] = failure(words) if words else _judge(operation.item, there)
        return tuple(outcomes)

    async def _write(self, parts: Sequence[Part]) -> dict[int, str]:
        """Have nft carry out the parts; its words for each operation that it refuses."""
        refused: dict[int, str] = {}
        left = list(parts)
        for _ in range(_ROUNDS):
            if not left:
                return refused
            script, owners = assemble(left)
            ran = await run_nft(self._netns, "--file", "-", script=script)
            if ran.trouble:
                return refused | {number: ran.trouble for part in left for number in part.operations}
            if not ran.refusals:
                return refused
            found = {owners[line]: words for line, words in ran.refusals}
            refused |= {number: words for place, words in found.items() for number in left[place].operations}
            left = [part for place, part in enumerate(left) if place not in found]
        words = "it refuses one thing after another"
        return refused | {number: words for part in left for number in part.operations}

    def read_drops(self) -> Mapping[str, int]:
        """Tell how many packets each counter of our table has counted since it was made; none where there is
        no table. Raises OSError."""
        if self._netfilter is None or self._netfilter.find_generation() is None:
            return {}
        counted = {name: self._netfilter.find_packets(name) for name in COUNTERS}
        return {name: packets for name, packets in counted.items() if packets is not None}

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        if self._netfilter is None:
            yield
            return
        async with (
            open_notifications(self._netns, (NFNLGRP_NFTABLES,), NETLINK_NETFILTER) as notifications,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(tell_changes, notifications, _concerned, on_change)
            yield
            nursery.cancel_scope.cancel()


def _concerned(message: Message) -> Keys:
    return frozenset({TABLE_KEY}) if is_about_our_table(message) else frozenset()


def _judge(wanted: Item, there: KernelState) -> Failure | None:
    """Tell whether nft lists what was written as it was written; what is not there at all was taken away since."""
    table = there.by_key.get(TABLE_KEY)
    is_odd = isinstance(table, NftTable) and table.odd != ""
    found = there.by_key.get(wanted.key, wanted)
    if found == wanted and not is_odd:
        return None
    return Failure(0, f"nft lists it otherwise than it was written: {found if found != wanted else table}")


@contextmanager
def open_nft(netns: str | None = None) -> Generator[NftDriver, None, None]:
    """Open the driver of our table in this network namespace, or in another one (see `in_netns`)."""
    with open_netfilter(netns) as netfilter:
        yield NftDriver(netfilter, netns)
