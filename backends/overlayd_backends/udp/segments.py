"""Cutting a superpacket, and finishing a checksum, as the kernel would have done it (net/ipv4/tcp_offload.c,
udp_offload.c).

What is the same in all segments is summed up once; each segment adds what is its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from overlayd_backends.udp.checksum import WORD, complement, pseudo_header, total
from overlayd_backends.udp.packet import CHECKSUM_OFFSET, NEEDS_CSUM, TCP, UDP, Header, Offload

FIN_PSH, CWR = 0x09, 0x80
"""TCP's flags (RFC 9293 section 3.1, RFC 3168 section 6.1.2)."""

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")


def finish(packet: bytes, header: Header, offload: Offload) -> bytes:
    """Finish a packet that is no superpacket, cut to its length, its checksum finished if that was left undone."""
    packet = packet[: header.length]
    if not offload.flags & NEEDS_CSUM:
        return packet
    at = offload.start + offload.offset
    checksum = complement(total(packet[offload.start :]))
    if checksum == 0 and header.protocol == UDP:
        checksum = WORD
    return packet[:at] + _U16.pack(checksum) + packet[at + 2 :]


def cut(packet: bytes, header: Header, headers_end: int, size: int) -> Iterator[bytes]:
    """Yield the segments of a superpacket of TCP or UDP, `size` bytes of payload in each but the last.

    The IP id counts up, FIN and PSH stay on the last segment alone, CWR on the first alone.
    """
    transport, is_tcp = header.size, header.protocol == TCP
    checksum_at = transport + CHECKSUM_OFFSET[header.protocol]
    template = bytearray(packet[:headers_end])
    sequence, flags = 0, 0
    if is_tcp:
        (sequence,), flags = _U32.unpack_from(template, transport + 4), template[transport + 13]
        _U32.pack_into(template, transport + 4, 0)
        template[transport + 13] = 0
    else:
        _U16.pack_into(template, transport + 4, 0)
    for field in (2, 4, 10, checksum_at):
        _U16.pack_into(template, field, 0)
    same_in_ip = total(bytes(template[:transport]))
    same_in_transport = total(bytes(template[transport:])) + pseudo_header(
        header.source, header.destination, header.protocol, 0
    )

    payload = memoryview(packet)[headers_end : header.length]
    for number, begin in enumerate(range(0, max(len(payload), 1), size)):
        part = payload[begin : begin + size]
        is_last = begin + size >= len(payload)
        length = headers_end + len(part)
        identifier = (header.id + number) & WORD
        _U16.pack_into(template, 2, length)
        _U16.pack_into(template, 4, identifier)
        _U16.pack_into(template, 10, complement(same_in_ip + length + identifier))

        own = length - transport
        if is_tcp:
            at = (sequence + begin) & 0xFFFFFFFF
            those = flags & ~(0 if is_last else FIN_PSH) & ~(CWR if number else 0)
            _U32.pack_into(template, transport + 4, at)
            template[transport + 13] = those
            own += (at >> 16) + (at & WORD) + those
        else:
            _U16.pack_into(template, transport + 4, own)
            own += own
        checksum = complement(same_in_transport + own + total(part))
        if checksum == 0 and not is_tcp:
            checksum = WORD
        _U16.pack_into(template, checksum_at, checksum)
        yield b"".join((template, part))
