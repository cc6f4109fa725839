"""Our own nftables table as kernel items.

Ours is the table `overlayd` of the family inet, as a whole and by its name, and nothing outside of it: that is how
a restarted daemon knows it, and why a table of almost the same name is safe.  Inside stands only what is declared
here; anything else there makes the table `odd`, and an odd table is replaced.

A rule is nft's own syntax, written as `host/nft/listing.py` writes down what it finds, so that rules can be
compared as text.  Drops are counted by named counters, which outlive a rewritten chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar

from overlayd.core.kernel.items import Item, Key, Rank, Removal, Replacement

FAMILY = "inet"
TABLE = "overlayd"
TABLE_KEY: Key = ("nft-table", TABLE)

SENDERS_TYPE = "@nh,96,32 . @th,336,32"
"""Type of all sets of senders: outer and inner source address, as numbers.  Positions are in bits.  The outer one
stands behind 12 bytes of the IPv4 header.  The inner one comes after the UDP header (64), the VXLAN header (64),
the inner Ethernet header (112) and 12 bytes of the inner IPv4 header (96).  RFC 791, 768, 7348 section 5."""
NODES = "nodes"
"""The set of peers' underlay addresses, each as the outer and as the inner source."""
OTHERS = "others"
"""The set of prefixes of any other length than the table's: an interval set, and the slowest to look into."""

MASQUERADE = "ip_masq"
SOURCE_CHECK = "source_check"
CHAINS = (MASQUERADE, SOURCE_CHECK)
"""Named after the options that ask for them."""

UNKNOWN_SENDER = "unknown_sender"
BAD_SOURCE = "bad_source"
NOT_OURS = "not_ours"
COUNTERS = (UNKNOWN_SENDER, BAD_SOURCE, NOT_OURS)
"""Why the source check drops a packet, in the words of the userspace datapath (docs/datapath.md)."""


def senders(prefixlen: int) -> str:
    """Name the set of prefixes of this length, which is a hash set: a lookup takes as long with a peer as with
    thousands."""
    return f"senders_{prefixlen}"


@dataclass(frozen=True, slots=True)
class NftTable(Item):
    """The table with its counters and its sets of senders, whatever the sets hold.

    `prefixlen` is the length of the prefixes in the set `senders`, 0 if a table was found that has none: the rules
    that look into the set mask the inner source by it, so another length replaces the table.  `odd` says what is
    wrong with a table that was found; no desired one is odd.
    """

    noun: ClassVar[str] = "nft-table"
    rank: ClassVar[int] = Rank.TABLE
    removal: ClassVar[Removal] = Removal.WHOLE

    prefixlen: int
    odd: str = ""

    @property
    def key(self) -> Key:
        return TABLE_KEY

    def replacement(self, wanted: Item) -> Replacement:
        return Replacement.ANEW

    def __str__(self) -> str:
        return f"table {FAMILY} {TABLE}" + (f" ({self.odd})" if self.odd else "")


class _InTable(Item):
    """An item that goes with the table."""

    __slots__ = ()

    removal: ClassVar[Removal] = Removal.EARLY
    within: ClassVar[str] = "nft-table"

    @property
    def container(self) -> Key:
        return TABLE_KEY


@dataclass(frozen=True, slots=True)
class NftChain(_InTable):
    """A base chain: `head` is its type, hook, priority and policy.  It must not outlive those whom it lets in."""

    noun: ClassVar[str] = "nft-chain"
    rank: ClassVar[int] = Rank.CHAIN

    name: str
    head: str
    rules: tuple[str, ...]

    @property
    def key(self) -> Key:
        return ("nft-chain", self.name)

    def __str__(self) -> str:
        return f"chain {FAMILY} {TABLE} {self.name} {{ {self.head} {'; '.join(self.rules)} }}"


@dataclass(frozen=True, slots=True)
class Sender(_InTable):
    """VXLAN packets may come from the underlay address `address` with an inner source address in `prefix`.

    In the set `others` an old one may stand in the way of a new one that overlaps it."""

    noun: ClassVar[str] = "sender"
    rank: ClassVar[int] = Rank.ELEMENT

    address: IPv4Address
    prefix: IPv4Network

    @property
    def key(self) -> Key:
        return ("sender", self.address, self.prefix)

    def set_in(self, prefixlen: int) -> str:
        """Name the set that it belongs to, in a table of this prefix length."""
        if self.prefix == IPv4Network(self.address):
            return NODES
        return senders(prefixlen) if self.prefix.prefixlen == prefixlen else OTHERS

    def __str__(self) -> str:
        return f"sender {self.address} of {self.prefix}"


NftItem = NftTable | NftChain | Sender
