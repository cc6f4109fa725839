"""Userspace datapaths: packet paths that run in this process beside the kernel's, and what overlayd knows of them.

A datapath stands among the kernel's items as if the kernel had it: one `Datapath` that is attached to a TUN
device, and an `Encap` for each prefix of its forwarding table.  So all that is desired of it, all that it does and
all that it fails to do is reconciled, retried and shown like everything else.  These two types are the udp
backend's; another datapath brings its own, and a driver that owns them (docs/write-a-backend.md).

Its driver observes the `Datapath` only while all of its threads run: one that died is absent, is therefore added
again, and `watch` tells of it.  The forwarding table is replaced whole by each `apply`, so a packet meets either
the table before or the table after, never one in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from overlayd.core.kernel.items import Item, Key, OnLink, Rank, Removal
from overlayd.core.network.addresses import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Datapath(OnLink):
    """A userspace datapath that runs: attached to the TUN device `link`, and bound to a UDP port of the
    underlay's address `local`.  It hands inwards what is addressed to a prefix of `own`, and nothing else."""

    noun: ClassVar[str] = "datapath"
    rank: ClassVar[int] = Rank.DATAPATH
    is_datapath: ClassVar[bool] = True

    link: str
    local: IPAddress
    port: int
    own: tuple[IPNetwork, ...] = ()

    @property
    def key(self) -> Key:
        return ("datapath", self.link)

    def conflict(self, other: Item) -> str:
        return other.conflict(self) if isinstance(other, Encap) else ""

    def __str__(self) -> str:
        own = ",".join(map(str, self.own)) or "none"
        return f"datapath {self.link} local {self.local} port {self.port} own {own}"


@dataclass(frozen=True, slots=True)
class Encap(OnLink):
    """An entry of a userspace datapath's forwarding table: packets to `prefix` go to this address and UDP port,
    and packets from `prefix` are let in from this address alone."""

    noun: ClassVar[str] = "encap"
    rank: ClassVar[int] = Rank.ENTRY
    removal: ClassVar[Removal] = Removal.EARLY

    link: str
    prefix: IPNetwork
    destination: IPAddress
    port: int

    @property
    def key(self) -> Key:
        return ("encap", self.link, self.prefix)

    def needs(self, desired: Mapping[Key, Item]) -> Iterable[Key]:
        return self.container, ("datapath", self.link)

    def conflict(self, other: Item) -> str:
        """Name the clash of two entries: an address has one place in a table."""
        if not isinstance(other, Datapath | Encap) or other.link != self.link:
            return ""
        for prefix in other.own if isinstance(other, Datapath) else (other.prefix,):
            if prefix.version == self.prefix.version and prefix.overlaps(self.prefix):
                return f"{self.prefix} and {prefix} overlap: an address would have two places"
        return ""

    def __str__(self) -> str:
        return f"encap {self.prefix} dev {self.link} to {self.destination} port {self.port}"


@dataclass(frozen=True, slots=True)
class DatapathReport:
    """A running datapath's report about itself.

    `implementation` is `c` or `python`, `reason` why that one; `offloads` are those in use, by name.  `counters`
    count what passed and `drops` what did not, by reason, in packets unless the name says bytes; they begin at 0
    with the process and never go back.  `trouble` names why it stopped last, "" if it never did.
    """

    implementation: str
    reason: str
    offloads: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


class DatapathUnavailableError(Exception):
    """The text says what is missing and how to get it."""
