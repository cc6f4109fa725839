"""Addresses as values: family, MAC address, and a node's subnet.

All of them are frozen and hashable, so that they can be compared whole, kept in sets and searched by a checker.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


def is_host_address(address: IPAddress) -> bool:
    """Tell whether packets can be sent to one host by this address: the one rule for public IPs, ours and peers'.

    Not so the unspecified address, loopback, multicast, broadcast and the reserved 240.0.0.0/4 (RFC 1112).
    """
    return not (address.is_unspecified or address.is_multicast or address.is_loopback or address.is_reserved)


def is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Tell whether every address of `inner` is one of `outer`, whatever their families."""
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)


class Family(enum.IntEnum):
    """An address family, numbered as the kernel numbers it (linux/socket.h: AF_INET, AF_INET6)."""

    IPV4 = 2
    IPV6 = 10

    @classmethod
    def of(cls, what: IPAddress | IPNetwork) -> Family:
        """Tell the family of an address or a prefix."""
        return cls.IPV4 if what.version == 4 else cls.IPV6

    @property
    def version(self) -> int:
        """The IP version: 4 or 6."""
        return 4 if self is Family.IPV4 else 6


@dataclass(frozen=True, slots=True, order=True)
class Mac:
    """A 48-bit Ethernet address."""

    packed: bytes

    def __post_init__(self) -> None:
        if len(self.packed) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(self.packed)}")

    @classmethod
    def parse(cls, text: str) -> Mac:
        """Read `aa:bb:cc:dd:ee:ff`; anything else raises ValueError."""
        if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
            raise ValueError(f"{text[:40]!r} is not a MAC address like 0a:1b:2c:3d:4e:5f")
        return cls(bytes.fromhex(text.replace(":", "")))

    @classmethod
    def local(cls, seed: bytes) -> Mac:
        """Make a locally administered unicast address (IEEE 802: bit 1 of the first byte set, bit 0 clear)
        from six bytes of chance."""
        return cls(bytes([(seed[0] | 0x02) & 0xFE]) + seed[1:6])

    @property
    def is_unicast(self) -> bool:
        return not self.packed[0] & 1 and any(self.packed)

    def __str__(self) -> str:
        return self.packed.hex(":")


@dataclass(frozen=True, slots=True)
class Subnet:
    """A node's slice of the network: one prefix per address family, IPv4 first."""

    prefixes: tuple[IPNetwork, ...]
    _hash: int = field(init=False, repr=False, compare=False)
    """Computed once: subnets are the keys of what there is per peer, and hashing prefixes is slow."""

    def __hash__(self) -> int:
        return self._hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.prefixes))
        versions = [prefix.version for prefix in self.prefixes]
        if versions not in ([4], [6], [4, 6]):
            raise ValueError(f"a subnet is one IPv4 prefix, one IPv6 prefix, or both in this order: {self}")

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """Read `10.244.3.0/24` or `10.244.3.0/24,fd00:3::/64`; host bits set raise ValueError."""
        return cls(tuple(ip_network(part) for part in text.split(",")))

    def of(self, family: Family) -> IPNetwork | None:
        return next((prefix for prefix in self.prefixes if prefix.version == family.version), None)

    def overlaps(self, other: Subnet) -> bool:
        return any(a.version == b.version and a.overlaps(b) for a in self.prefixes for b in other.prefixes)

    @property
    def sort_key(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((p.version, int(p.network_address), p.prefixlen) for p in self.prefixes)

    def __str__(self) -> str:
        return ",".join(map(str, self.prefixes))
