"""Joining what arrived: packets of one TCP or UDP flow that follow one another become one superpacket.

Only where the kernel, cutting it again, would give back the very packets (of the ids of packets that may not be
fragmented only that they mean nothing, RFC 6864).  All that a segment has of its own is checked: what remains
are the headers, and the `likeness` of two packets holds every byte of these that must be equal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from overlayd_backends.udp.checksum import WORD, complement, fold, pseudo_header, total
from overlayd_backends.udp.packet import (
    CHECKSUM_OFFSET,
    DONT_FRAGMENT,
    GSO_TCPV4,
    GSO_UDP_L4,
    IPV4_HEADER,
    NEEDS_CSUM,
    NO_OFFLOAD,
    OFFLOAD,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    Header,
)

PACKETS = 64
"""As many as one UDP_SEGMENT send brings."""
LENGTH = 0xFFFF
"""RFC 791 section 3.1: the total length has 16 bits."""

ACK, PSH = 0x10, 0x08
"""TCP's flags (RFC 9293 section 3.1)."""
_FLAGS = IPV4_HEADER + 13

_U16 = struct.Struct("!H")
_TCP = struct.Struct("!xB4xI2xQIIIBBH2xH")
"""From the IPv4 header on (RFC 791, RFC 9293): TOS; fragment field, TTL and protocol; addresses; ports; sequence,
acknowledgement, data offset, flags, window, urgent pointer."""
_UDP = struct.Struct("!xB4xI2xQIHH")
"""The same up to the ports (RFC 768), then length and checksum."""


class Joinable(NamedTuple):
    """A packet that others may join: where its payload begins, its place in the stream, whether it ends one."""

    header: Header
    packet: bytes
    likeness: tuple[object, ...]
    headers_end: int
    sequence: int
    ends: bool


class Write(NamedTuple):
    """A frame for the TUN, how many packets it holds, and their lengths in all."""

    frame: bytes
    packets: int
    length: int


def coalesce(arrivals: Iterable[tuple[Header, bytes]], tcp: bool, udp: bool) -> list[Write]:
    """The frames, with offload header, that carry these packets, each cut to its total length, in their order."""
    writes: list[Write] = []
    run: list[Joinable] = []
    for header, packet in arrivals:
        protocol, joinable = header.protocol, None
        if protocol == TCP and tcp:
            joinable = _find_joinable_tcp(header, packet)
        elif protocol == UDP and udp:
            joinable = _find_joinable_udp(header, packet)
        if run and (joinable is None or not _continues(run, joinable)):
            writes.append(_join(run))
            run = []
        if joinable is None:
            writes.append(Write(NO_OFFLOAD + packet, 1, header.length))
        else:
            run.append(joinable)
    if run:
        writes.append(_join(run))
    return writes


def _find_joinable_tcp(header: Header, packet: bytes) -> Joinable | None:
    if not _is_plain(header, TCP_HEADER):
        return None
    tos, rest, addresses, ports, sequence, acknowledgement, offset, flags, window, urgent = _TCP.unpack_from(
        packet
    )
    end = IPV4_HEADER + (offset >> 4) * 4
    if end < IPV4_HEADER + TCP_HEADER or end >= header.length or offset & 0x0F:
        return None
    if flags & ~PSH != ACK or not _is_sound(header, packet):
        return None
    options = packet[IPV4_HEADER + TCP_HEADER : end]
    likeness = (tos, rest, addresses, ports, acknowledgement, offset, window, urgent, options)
    return Joinable(header, packet, likeness, end, sequence, flags & PSH != 0)


def _find_joinable_udp(header: Header, packet: bytes) -> Joinable | None:
    end = IPV4_HEADER + UDP_HEADER
    if not _is_plain(header, UDP_HEADER) or header.length == end:
        return None
    tos, rest, addresses, ports, length, checksum = _UDP.unpack_from(packet)
    if length != header.length - IPV4_HEADER or checksum == 0 or not _is_sound(header, packet):
        return None
    return Joinable(header, packet, (tos, rest, addresses, ports), end, 0, False)


def _is_plain(header: Header, transport: int) -> bool:
    """Neither IP options nor a fragment, and room for a transport header."""
    return (
        header.first == 0x45 and header.fragment in (0, DONT_FRAGMENT) and header.length >= IPV4_HEADER + transport
    )


def _is_sound(header: Header, packet: bytes) -> bool:
    """Whether the transport checksum is right.  The IP header may be summed up along: its own is, so it adds 0."""
    length = header.length - IPV4_HEADER
    pseudo = pseudo_header(header.source, header.destination, header.protocol, length)
    return (total(packet) + pseudo) % WORD == 0


def _continues(run: list[Joinable], new: Joinable) -> bool:
    """Whether a packet joins those before it."""
    first, last = run[0], run[-1]
    size = first.header.length - first.headers_end
    return (
        new.likeness == first.likeness
        and last.header.length == first.header.length
        and new.header.length <= first.header.length
        and not last.ends
        and len(run) < PACKETS
        and first.headers_end + len(run) * size + new.header.length - new.headers_end <= LENGTH
        and (first.header.protocol == UDP or new.sequence == (last.sequence + size) & 0xFFFFFFFF)
        and (bool(first.header.fragment) or new.header.id == (last.header.id + 1) & WORD)
    )


def _join(run: list[Joinable]) -> Write:
    first, last = run[0], run[-1]
    if len(run) == 1:
        return Write(NO_OFFLOAD + first.packet, 1, first.header.length)
    header, end = first.header, first.headers_end
    size = header.length - end
    length = end + (len(run) - 1) * size + last.header.length - end
    joined = bytearray(first.packet[:end])
    _U16.pack_into(joined, 2, length)
    _U16.pack_into(joined, 10, 0)
    _U16.pack_into(joined, 10, complement(total(bytes(joined[:IPV4_HEADER]))))
    inside = length - IPV4_HEADER
    at = CHECKSUM_OFFSET[header.protocol]
    pseudo = fold(pseudo_header(header.source, header.destination, header.protocol, inside))
    _U16.pack_into(joined, IPV4_HEADER + at, pseudo)
    if header.protocol == TCP:
        joined[_FLAGS] |= PSH * last.ends
        kind = GSO_TCPV4
    else:
        _U16.pack_into(joined, IPV4_HEADER + 4, inside)
        kind = GSO_UDP_L4
    offload = OFFLOAD.pack(NEEDS_CSUM, kind, end, size, IPV4_HEADER, at)
    frame = b"".join((offload, joined, *(memoryview(one.packet)[end:] for one in run)))
    return Write(frame, len(run), len(run) * end + length - end)
