"""The forwarding table: which addresses are this node's own, and which peer each other prefix belongs to.

All prefixes are disjoint, so every address has one place or none, and no rule of precedence is needed.  Whoever
made a table that isn't has a bug that would send packets to the wrong host: it is refused.

An engine takes the table packed, whole: `=II` (how many own, how many entries), then per own prefix `=II` (first
and last address), then per entry `=IIIHxx` (first and last address, peer's address, UDP port); addresses as
integers of the host's byte order; own prefixes and entries each in ascending order.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from overlayd.core.kernel.datapath import Datapath, Encap

COUNTS = struct.Struct("=II")
OWN = struct.Struct("=II")
ENTRY = struct.Struct("=IIIHxx")


class TableEntry(NamedTuple):
    """Packets to `prefix` go to this address and UDP port; from `prefix` they come from this address alone."""

    prefix: IPv4Network
    peer: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class Table:
    """A node's whole forwarding table; prefixes that overlap raise ValueError, which names two of them."""

    own: tuple[IPv4Network, ...] = ()
    entries: tuple[TableEntry, ...] = ()

    def __post_init__(self) -> None:
        prefixes = sorted((*self.own, *(entry.prefix for entry in self.entries)), key=_first)
        for before, after in pairwise(prefixes):
            if _last(before) >= _first(after):
                raise ValueError(f"{before} and {after} overlap: an address would have two places")

    @classmethod
    def of(cls, datapath: Datapath, encaps: Iterable[Encap]) -> Table:
        """Return the table that these items describe.  Raises ValueError if they overlap, or are not IPv4,
        which is all that a datapath carries so far."""
        own = tuple(_ipv4(prefix) for prefix in datapath.own)
        return cls(own, tuple(_entry(encap) for encap in encaps))

    def packed(self) -> bytes:
        """Pack the table for an engine's `replace`."""
        own = sorted((_first(prefix), _last(prefix)) for prefix in self.own)
        entries = sorted((_first(prefix), _last(prefix), int(peer), port) for prefix, peer, port in self.entries)
        rows = [COUNTS.pack(len(own), len(entries))]
        rows += [OWN.pack(*row) for row in own]
        rows += [ENTRY.pack(*row) for row in entries]
        return b"".join(rows)


class Place(NamedTuple):
    """Where an address is: at this peer, as four bytes in network order, behind this UDP port."""

    peer: bytes
    port: int


class Lookup:
    """A packed table, unpacked for questions.  Addresses are integers."""

    __slots__ = ("_first", "_last", "_own_first", "_own_last", "_places", "peers")

    def __init__(self, packed: bytes) -> None:
        """Raises ValueError where length, order or disjointness are not as described above, or a port is 0."""
        if len(packed) < COUNTS.size:
            raise ValueError(f"a packed table has at least {COUNTS.size} bytes, this one {len(packed)}")
        own_count, entry_count = COUNTS.unpack_from(packed)
        size = COUNTS.size + own_count * OWN.size + entry_count * ENTRY.size
        if len(packed) != size:
            raise ValueError(
                f"a packed table of {own_count} own prefixes and {entry_count} entries has {size} bytes, "
                f"this one {len(packed)}"
            )
        split = COUNTS.size + own_count * OWN.size
        own = list(OWN.iter_unpack(packed[COUNTS.size : split]))
        entries = list(ENTRY.iter_unpack(packed[split:]))
        _require_ascending("own prefixes", own)
        _require_ascending("entries", entries)
        _require_ascending("own prefixes and entries together", sorted([*own, *entries], key=itemgetter(0)))
        if any(port == 0 for *_, port in entries):
            raise ValueError("an entry has UDP port 0, which nothing can be sent to")
        self._own_first, self._own_last = [row[0] for row in own], [row[1] for row in own]
        self._first, self._last = [row[0] for row in entries], [row[1] for row in entries]
        self._places = [Place(peer.to_bytes(4, "big"), port) for _, _, peer, port in entries]
        self.peers = frozenset(place.peer for place in self._places)
        """Every peer that some entry names."""

    def is_own(self, address: int) -> bool:
        index = bisect_right(self._own_first, address) - 1
        return index >= 0 and address <= self._own_last[index]

    def find(self, address: int) -> Place | None:
        """Find the peer that has this address, None for none."""
        index = bisect_right(self._first, address) - 1
        return self._places[index] if index >= 0 and address <= self._last[index] else None


def _require_ascending(what: str, rows: list[tuple[int, ...]]) -> None:
    for row in rows:
        if row[0] > row[1]:
            raise ValueError(f"{what}: {_span(row)} ends before it begins")
    for before, after in pairwise(rows):
        if before[1] >= after[0]:
            raise ValueError(f"{what}: {_span(after)} overlaps or should stand before {_span(before)}")


def _span(row: tuple[int, ...]) -> str:
    return f"{IPv4Address(row[0])}-{IPv4Address(row[1])}"


def _entry(encap: Encap) -> TableEntry:
    if not isinstance(encap.destination, IPv4Address):
        raise ValueError(f"{encap}: the datapath sends over IPv4 alone")  # noqa: TRY004 - a wrong family
    return TableEntry(_ipv4(encap.prefix), encap.destination, encap.port)


def _ipv4(prefix: object) -> IPv4Network:
    if not isinstance(prefix, IPv4Network):
        raise ValueError(f"{prefix}: the datapath carries IPv4 alone")  # noqa: TRY004 - a wrong family
    return prefix


def _first(prefix: IPv4Network) -> int:
    return int(prefix.network_address)


def _last(prefix: IPv4Network) -> int:
    return int(prefix.broadcast_address)


EMPTY = Table().packed()
"""Nothing is own, nobody is anywhere: every packet is dropped."""
