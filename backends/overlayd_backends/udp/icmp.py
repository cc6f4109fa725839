"""What the datapath tells a sender: ICMP errors (RFC 792, RFC 1122 section 3.2.2, RFC 1812 section 4.3.2).

They seem to come from the address that the packet was for: the kernel would discard one of its own addresses as a
martian, which is why flannel's never arrive.
"""

from __future__ import annotations

import enum
import struct

from overlayd_backends.udp.checksum import complement, total
from overlayd_backends.udp.packet import DONT_FRAGMENT, ICMP, IPV4, OFFSET, Header

UNREACHABLE = 3
"""RFC 792"""
ERRORS = frozenset({3, 4, 5, 11, 12})
"""RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem."""
PRECEDENCE = 0xC0
"""Internetwork control, as RFC 1812 section 4.3.2.5 asks."""
TTL = 64
QUOTED = 8
"""Bytes behind the header that are quoted (RFC 792)."""
SMALLEST_MTU = 68
"""RFC 791 section 3.2: every link carries this."""
PER_SECOND = 100

_MESSAGE = struct.Struct("!BBHHH")


class Code(enum.IntEnum):
    """Of a destination that is unreachable (RFC 792, RFC 1191)."""

    NET = 0
    FRAGMENTATION_NEEDED = 4


def may_be_told(packet: bytes, header: Header) -> bool:
    """Tell whether an error may be sent: not about ICMP errors, later fragments, non-hosts (RFC 1122 section
    3.2.2)."""
    if header.fragment & OFFSET or not (_is_host(header.source) and _is_host(header.destination)):
        return False
    if header.protocol != ICMP:
        return True
    return header.length > header.size and packet[header.size] not in ERRORS


def unreachable(packet: bytes, header: Header, code: Code, mtu: int = 0) -> bytes:
    """Return the message about this packet; `mtu` in bytes is what the next hop takes (RFC 1191 section 4)."""
    quoted = packet[: min(header.size + QUOTED, header.length)]
    message = _MESSAGE.pack(UNREACHABLE, code, 0, 0, mtu) + quoted
    message = _MESSAGE.pack(UNREACHABLE, code, complement(total(message)), 0, mtu) + quoted
    fields = (0x45, PRECEDENCE, IPV4.size + len(message), 0, DONT_FRAGMENT, TTL, ICMP)
    addresses = (header.destination, header.source)
    checksum = complement(total(IPV4.pack(*fields, 0, *addresses)))
    return IPV4.pack(*fields, checksum, *addresses) + message


class Allowance:
    """At most `PER_SECOND` messages a second, which begins with the first message after the second before."""

    __slots__ = ("_began", "_told")

    def __init__(self) -> None:
        self._began = float("-inf")
        self._told = 0

    def take(self, now: float) -> bool:
        """Tell whether one more is allowed; `now` in seconds of any clock that does not go back."""
        if now - self._began >= 1:
            self._began, self._told = now, 0
        self._told += 1
        return self._told <= PER_SECOND


def _is_host(address: int) -> bool:
    """Not of "this network", nor a loopback, group or reserved address (RFC 1122 section 3.2.1.3)."""
    return 0 < address >> 24 < 224 and address >> 24 != 127
