"""What stands where: the IPv4 header, and the offload header before it on a TUN device."""

from __future__ import annotations

import struct
from typing import NamedTuple

IPV4 = struct.Struct("!BBHHHBBHII")
"""RFC 791 section 3.1: the fields of `Header`."""
IPV4_HEADER = 20
"""Bytes of an IPv4 header without options."""
DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
OFFSET = 0x1FFF
"""Of the fragment field (RFC 791 section 3.1)."""

ICMP, TCP, UDP = 1, 6, 17
"""IANA's protocol numbers."""
TCP_HEADER, UDP_HEADER = 20, 8
"""Bytes: RFC 9293 section 3.1, without options, and RFC 768."""
CHECKSUM_OFFSET = {TCP: 16, UDP: 6}
"""Where the checksum stands in the transport header."""

OFFLOAD = struct.Struct("<BBHHHH")
"""struct virtio_net_hdr (linux/virtio_net.h): the fields of `Offload`; little-endian after TUNSETVNETLE."""
NO_OFFLOAD = bytes(OFFLOAD.size)
NEEDS_CSUM = 1
"""VIRTIO_NET_HDR_F_NEEDS_CSUM"""
GSO_NONE, GSO_TCPV4, GSO_UDP_L4 = 0, 1, 5
GSO_ECN = 0x80
"""VIRTIO_NET_HDR_GSO_…"""


class Header(NamedTuple):
    """An IPv4 header.  Lengths are in bytes, addresses are integers."""

    first: int
    tos: int
    length: int
    id: int
    fragment: int
    ttl: int
    protocol: int
    checksum: int
    source: int
    destination: int

    @property
    def size(self) -> int:
        return (self.first & 0x0F) * 4


class Offload(NamedTuple):
    """An offload header: what the kernel left undone.  `segment` is the payload of each segment, in bytes; the
    checksum from `start` on belongs `offset` bytes behind it."""

    flags: int
    kind: int
    headers: int
    segment: int
    start: int
    offset: int

    @property
    def segmentation(self) -> int:
        """Of the kind, without what concerns congestion: segments are the same with it and without."""
        return self.kind & ~GSO_ECN
