"""The fake kernel's part that nft keeps: one table, and in it what has been put there."""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass, field

from overlayd.core.firewall.nftables import COUNTERS, NftChain, NftItem, NftTable, Sender
from overlayd.core.kernel.driver import Failure
from overlayd.core.kernel.items import Item

KINDS: frozenset[type[Item]] = frozenset({NftTable, NftChain, Sender})


@dataclass
class FakeNft:
    """`counters` are those of the table, in packets."""

    table: NftTable | None = None
    chains: dict[str, NftChain] = field(default_factory=dict)
    senders: set[Sender] = field(default_factory=set)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def items(self) -> Collection[NftItem]:
        return () if self.table is None else (self.table, *self.chains.values(), *self.senders)

    def flush(self) -> None:
        """Remove all tables, as `nft flush ruleset` does."""
        self.table = None
        self.chains.clear()
        self.senders.clear()
        self.counters.clear()

    def put(self, item: Item) -> Failure | None:
        match item:
            case NftTable():
                if self.table != item:  # an odd one is replaced
                    self.flush()
                    self.counters.update(dict.fromkeys(COUNTERS, 0))
                self.table = item
                return None
            case _ if self.table is None:
                return Failure(errno.ENOENT, "there is no table")
            case NftChain():
                self.chains[item.name] = item
            case Sender():
                self.senders.add(item)
        return None

    def remove(self, item: Item) -> None:
        match item:
            case NftTable():
                self.flush()
            case NftChain():
                self.chains.pop(item.name, None)
            case Sender():
                self.senders.discard(item)
