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
SENDERS = "senders"
"""The set of `Sender` elements."""
SENDERS_TYPE = "ip saddr . @th,336,32"
"""What an element of it is compared with: outer and inner source address.  The latter, counted in bits from the
UDP header, comes after that (64), the VXLAN header (64), the inner Ethernet header (112) and the first 12 bytes of
the inner IPv4 header (96).  RFC 768, RFC 7348 section 5, RFC 791."""

MASQUERADE = "ip_masq"
SOURCE_CHECK = "source_check"
CHAINS = (MASQUERADE, SOURCE_CHECK)
"""Named after the options that ask for them."""

UNKNOWN_SENDER = "unknown_sender"
BAD_SOURCE = "bad_source"
NOT_OURS = "not_ours"
COUNTERS = (UNKNOWN_SENDER, BAD_SOURCE, NOT_OURS)
"""Why the source check drops a packet, in the words of the userspace datapath (docs/datapath.md)."""


@dataclass(frozen=True, slots=True)
class NftTable(Item):
    """The table with its counters and its set of senders, whatever the set holds.  `odd` says what is wrong with a
    table that was found; no desired one is odd."""

    noun: ClassVar[str] = "nft-table"
    rank: ClassVar[int] = Rank.TABLE
    removal: ClassVar[Removal] = Removal.WHOLE

    odd: str = ""

    @property
    def key(self) -> Key:
        return ("nft-table", TABLE)

    def replacement(self, wanted: Item) -> Replacement:
        return Replacement.ANEW

    def __str__(self) -> str:
        return f"table {FAMILY} {TABLE}" + (f" ({self.odd})" if self.odd else "")


class _InTable(Item):
    """What goes with the table."""

    __slots__ = ()

    removal: ClassVar[Removal] = Removal.EARLY
    within: ClassVar[str] = "nft-table"

    @property
    def container(self) -> Key:
        return NftTable().key


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

    An old one may stand in the way of a new one that overlaps it."""

    noun: ClassVar[str] = "sender"
    rank: ClassVar[int] = Rank.ELEMENT

    address: IPv4Address
    prefix: IPv4Network

    @property
    def key(self) -> Key:
        return ("sender", self.address, self.prefix)

    def __str__(self) -> str:
        return f"sender {self.address} of {self.prefix}"


NftItem = NftTable | NftChain | Sender
