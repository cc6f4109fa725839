"""Which packets leave together, by one call with UDP_SEGMENT: successive ones of equal size to one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from overlayd_backends.udp.table import Place

PACKETS = 64
"""UDP_MAX_SEGMENTS of linux/udp.h, as it was at first; later kernels take 128."""
BYTES = 65_000
"""A train is one datagram to the kernel, until it is cut: below the 65,507 of RFC 768 and RFC 791."""


class Send(NamedTuple):
    """One system call: a datagram, or with a `segment_size` a train of datagrams of so many bytes, of which the
    last may be smaller.  `peer` is four bytes in network order."""

    peer: bytes
    port: int
    segment_size: int
    payload: bytes

    @property
    def packets(self) -> int:
        return -(-len(self.payload) // self.segment_size) if self.segment_size else 1


def gather(departures: Iterable[tuple[Place, bytes]], udp_segment: bool) -> list[Send]:
    """Gather the sends that carry these packets, in their order."""
    if not udp_segment:
        return [Send(place.peer, place.port, 0, packet) for place, packet in departures]
    sends: list[Send] = []
    waiting: list[bytes] = []
    bound: Place | None = None
    size = room = 0

    def leave() -> None:
        if bound is not None and waiting:
            sends.append(Send(*bound, size if len(waiting) > 1 else 0, b"".join(waiting)))
            waiting.clear()

    for place, packet in departures:
        length = len(packet)
        if not waiting or place != bound or length > size or length > room or len(waiting) == PACKETS:
            leave()
            bound, size, room = place, length, BYTES
        waiting.append(packet)
        room -= length
        if length < size:
            leave()
    leave()
    return sends


def take_apart(segment_size: int, payload: bytes) -> list[bytes]:
    """Cut a train into its datagrams."""
    if segment_size <= 0 or len(payload) <= segment_size:
        return [payload]
    return [payload[begin : begin + segment_size] for begin in range(0, len(payload), segment_size)]
