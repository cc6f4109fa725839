"""The verdicts on a packet, in the order of docs/datapath.md; the first rule that matches decides."""

from __future__ import annotations

import enum

from overlayd_backends.udp.checksum import WORD, total
from overlayd_backends.udp.packet import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_UDP_L4,
    IPV4,
    IPV4_HEADER,
    MORE_FRAGMENTS,
    NEEDS_CSUM,
    OFFSET,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    Header,
    Offload,
)
from overlayd_backends.udp.table import Lookup, Place


class Drop(enum.Enum):
    """The reason why a packet goes no further."""

    TRUNCATED = "truncated"
    IPV6 = "ipv6"
    BAD_HEADER = "bad_header"
    BAD_OFFLOAD = "bad_offload"
    OWN_DESTINATION = "own_destination"
    NO_ROUTE = "no_route"
    TOO_BIG = "too_big"
    UNKNOWN_SENDER = "unknown_sender"
    BAD_SOURCE = "bad_source"
    NOT_OURS = "not_ours"


_SEGMENTED = {GSO_TCPV4: TCP, GSO_UDP_L4: UDP}


def check_shape(packet: bytes, read_from_tun: bool) -> Header | Drop:
    """Return the header of a packet that is a whole IPv4 packet."""
    if len(packet) < IPV4_HEADER:
        return Drop.TRUNCATED
    header = Header._make(IPV4.unpack_from(packet))
    version, size = header.first >> 4, (header.first & 0x0F) * 4
    if version == 6 and read_from_tun:
        return Drop.IPV6
    if version != 4 or size < IPV4_HEADER or header.length < size:
        return Drop.BAD_HEADER
    if header.length > len(packet):
        return Drop.TRUNCATED
    return header


def check_offload(packet: bytes, header: Header, offload: Offload) -> Drop | None:
    """Tell whether the packet bears out what its offload header says."""
    segmentation = offload.segmentation
    if offload.flags & NEEDS_CSUM and not (
        header.size <= offload.start and offload.start + offload.offset + 2 <= header.length
    ):
        return Drop.BAD_OFFLOAD
    if segmentation == GSO_NONE:
        return None
    if (
        _SEGMENTED.get(segmentation) != header.protocol
        or offload.segment == 0
        or header.fragment & (MORE_FRAGMENTS | OFFSET)
        or find_headers_end(packet, header) is None
    ):
        return Drop.BAD_OFFLOAD
    return None


def find_headers_end(packet: bytes, header: Header) -> int | None:
    """Find the start of a TCP or UDP packet's payload; None if its transport header is not all there."""
    if header.protocol == UDP:
        end = header.size + UDP_HEADER
    else:
        if header.length < header.size + TCP_HEADER:
            return None
        own = (packet[header.size + 12] >> 4) * 4
        if own < TCP_HEADER:
            return None
        end = header.size + own
    return end if end <= header.length else None


def classify_outgoing(header: Header, table: Lookup) -> Place | Drop:
    """Decide the destination of a packet."""
    if table.is_own(header.destination):
        return Drop.OWN_DESTINATION
    return table.find(header.destination) or Drop.NO_ROUTE


def classify_incoming(packet: bytes, sender: bytes, table: Lookup) -> Header | Drop:
    """Classify the header of a packet that came from `sender`, four bytes in network order, and may come in."""
    if sender not in table.peers:
        return Drop.UNKNOWN_SENDER
    header = check_shape(packet, read_from_tun=False)
    if isinstance(header, Drop):
        return header
    if total(packet[: header.size]) != WORD:
        return Drop.BAD_HEADER
    place = table.find(header.source)
    if place is None or place.peer != sender:
        return Drop.BAD_SOURCE
    return header if table.is_own(header.destination) else Drop.NOT_OURS
