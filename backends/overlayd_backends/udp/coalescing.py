"""Joining what arrived: packets of one TCP or UDP flow that follow one another become one superpacket.

Only where the kernel, cutting it again, would give back the very packets (of the ids of packets that may not be
fragmented only that they mean nothing, RFC 6864).  All that a segment has of its own is checked: what remains
are the headers, and the `likeness` of two packets holds every byte of these that must be equal.

Most packets of a fast flow are just what one would predict from the one before.  For these a few comparisons of
bytes do, and no verdict is asked for again (Van Jacobson's header prediction, for the same reason).
"""

from __future__ import annotations

import struct
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
_ID_AND_SEQUENCE = struct.Struct("!H18xI")
"""From the IPv4 id on: it, and TCP's sequence."""


class Write(NamedTuple):
    """A frame for the TUN, how many packets it holds, and their lengths in all."""

    frame: bytes
    packets: int
    length: int


class Joinable(NamedTuple):
    """A packet that others may join: where its payload begins, its place in the stream, whether it ends one."""

    header: Header
    packet: bytes
    likeness: tuple[object, ...]
    headers_end: int
    sequence: int
    ends: bool


class Coalescer:
    """Joins the packets of one batch that may come in; `writes` are the frames that carry them, in their order.

    A frame with a packet alone begins with `prefix`: an empty offload header, or nothing where there is none, and
    then nothing can be joined either.
    """

    def __init__(self, prefix: bytes, tcp: bool, udp: bool) -> None:
        self.writes: list[Write] = []
        self._prefix = prefix
        self._tcp = tcp
        self._udp = udp
        self._run: _Run | None = None

    def takes_next(self, sender: bytes, packet: bytes) -> bool:
        """Take a packet that nobody has judged yet, if it is just the one to come after those that wait: then the
        verdict on the first of them is the verdict on it.  What is False here may still be joined."""
        return self._run is not None and self._run.takes_next(sender, packet)

    def add(self, sender: bytes, header: Header, packet: bytes) -> None:
        """Add a packet that was judged, and cut to its total length."""
        joinable = None
        if header.protocol == TCP and self._tcp:
            joinable = _find_joinable_tcp(header, packet)
        elif header.protocol == UDP and self._udp:
            joinable = _find_joinable_udp(header, packet)
        if joinable is None:
            self.flush()
            self.writes.append(Write(self._prefix + packet, 1, header.length))
        elif self._run is None or not self._run.takes(joinable):
            self.flush()
            self._run = _Run(sender, joinable)

    def flush(self) -> None:
        """Write what waits for more of its kind: the batch is over."""
        if self._run is not None:
            self.writes.append(self._run.join())
            self._run = None


def _find_joinable_tcp(header: Header, packet: bytes) -> Joinable | None:
    if not _is_plain(header, TCP_HEADER):
        return None
    tos, rest, addresses, ports, sequence, acknowledged, offset, flags, window, urgent = _TCP.unpack_from(packet)
    end = IPV4_HEADER + (offset >> 4) * 4
    if end < IPV4_HEADER + TCP_HEADER or end >= header.length or offset & 0x0F:
        return None
    if flags & ~PSH != ACK or not _is_sound(header, packet):
        return None
    options = packet[IPV4_HEADER + TCP_HEADER : end]
    likeness = (tos, rest, addresses, ports, acknowledged, offset, window, urgent, options)
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
    """Tell whether the transport checksum is right.  The IP header may be summed up along: its own is, so it adds
    0."""
    return (total(packet) + _pseudo(header)) % WORD == 0


def _pseudo(header: Header) -> int:
    return pseudo_header(header.source, header.destination, header.protocol, header.length - IPV4_HEADER)


class _Run:
    """Packets that follow one another, of one size up to the last."""

    def __init__(self, sender: bytes, first: Joinable) -> None:
        packet, end = first.packet, first.headers_end
        self._first = first
        self._is_tcp = first.header.protocol == TCP
        self._may_be_fragmented = first.header.fragment == 0
        self._size = len(packet) - end
        self._packets = [packet]
        self._length = len(packet)
        self._id = first.header.id
        self._sequence = first.sequence
        self._ends = first.ends
        # What `takes_next` compares.
        self._sender = sender
        self._pseudo = _pseudo(first.header)
        self._head, self._middle, self._flow = packet[:4], packet[6:10], packet[12:24]
        self._state, self._tail = packet[28:36], packet[38:end]

    def takes(self, new: Joinable) -> bool:
        """Take a packet that continues the run."""
        header, first = new.header, self._first
        if (
            new.likeness != first.likeness
            or self._ends
            or header.length > len(first.packet)
            or not self._has_room(header.length - new.headers_end)
            or not self._continues(header.id, new.sequence)
        ):
            return False
        self._add(new.packet, header.id, new.sequence)
        self._ends = new.ends
        return True

    def takes_next(self, sender: bytes, packet: bytes) -> bool:
        """Take a packet of the first one's size that continues the run without ending it, if every byte of its
        headers is the first one's, beside those that change from packet to packet."""
        if (
            len(packet) != len(self._first.packet)
            or packet[:4] != self._head
            or packet[6:10] != self._middle
            or packet[12:24] != self._flow
            or sender != self._sender
            or self._ends
            or not self._has_room(self._size)
        ):
            return False
        identifier, sequence = _ID_AND_SEQUENCE.unpack_from(packet, 4)
        if self._is_tcp:
            if packet[28:36] != self._state or packet[38 : self._first.headers_end] != self._tail:
                return False
        elif packet[24:26] != self._first.packet[24:26] or packet[26:28] == b"\0\0":
            return False
        if (
            not self._continues(identifier, sequence)
            or total(packet[:IPV4_HEADER]) != WORD
            or (total(packet) + self._pseudo) % WORD != 0
        ):
            return False
        self._add(packet, identifier, sequence)
        return True

    def _has_room(self, payload: int) -> bool:
        count = len(self._packets)
        return (
            count < PACKETS
            and self._length == len(self._first.packet)
            and self._first.headers_end + count * self._size + payload <= LENGTH
        )

    def _continues(self, identifier: int, sequence: int) -> bool:
        if self._may_be_fragmented and identifier != (self._id + 1) & WORD:
            return False
        return not self._is_tcp or sequence == (self._sequence + self._size) & 0xFFFFFFFF

    def _add(self, packet: bytes, identifier: int, sequence: int) -> None:
        self._packets.append(packet)
        self._length, self._id, self._sequence = len(packet), identifier, sequence

    def join(self) -> Write:
        first, count = self._first, len(self._packets)
        if count == 1:
            return Write(NO_OFFLOAD + first.packet, 1, first.header.length)
        header, end = first.header, first.headers_end
        length = (count - 1) * self._size + self._length
        joined = bytearray(first.packet[:end])
        _U16.pack_into(joined, 2, length)
        _U16.pack_into(joined, 10, 0)
        _U16.pack_into(joined, 10, complement(total(bytes(joined[:IPV4_HEADER]))))
        inside = length - IPV4_HEADER
        at = CHECKSUM_OFFSET[header.protocol]
        pseudo = fold(pseudo_header(header.source, header.destination, header.protocol, inside))
        _U16.pack_into(joined, IPV4_HEADER + at, pseudo)
        if self._is_tcp:
            joined[_FLAGS] |= PSH * self._ends
            kind = GSO_TCPV4
        else:
            _U16.pack_into(joined, IPV4_HEADER + 4, inside)
            kind = GSO_UDP_L4
        offload = OFFLOAD.pack(NEEDS_CSUM, kind, end, self._size, IPV4_HEADER, at)
        frame = b"".join((offload, joined, *[packet[end:] for packet in self._packets]))
        return Write(frame, count, length + (count - 1) * end)
