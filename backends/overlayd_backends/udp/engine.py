"""The seam between the rules and the loop: an engine turns batches of what was read into what is to be written.

`PythonEngine` puts the rules of this package together; `_datapath.Engine`, in C, is another.  For the same calls
both return the same and count the same, which tests/properties/test_udp_engines.py holds them to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

from overlayd_backends.udp.coalescing import Coalescer, Write
from overlayd_backends.udp.gso_batch import Send, gather, take_apart
from overlayd_backends.udp.icmp import SMALLEST_MTU, Allowance, Code, may_be_told, unreachable
from overlayd_backends.udp.packet import (
    DONT_FRAGMENT,
    GSO_NONE,
    IPV4,
    NO_OFFLOAD,
    OFFLOAD,
    Header,
    Offload,
)
from overlayd_backends.udp.rules import (
    Drop,
    check_offload,
    check_shape,
    classify_incoming,
    classify_outgoing,
    find_headers_end,
)
from overlayd_backends.udp.segments import cut, finish
from overlayd_backends.udp.table import EMPTY, Lookup, Place

OUTER_HEADERS = 20 + 8
"""Bytes of IPv4 (RFC 791) and UDP (RFC 768) around an inner packet."""

COUNTERS = (
    *("tx_packets", "tx_bytes", "tx_superpackets", "tx_sends", "tx_trains"),
    *("rx_packets", "rx_bytes", "rx_superpackets", "rx_writes", "rx_trains"),
    *("icmp_sent", "icmp_suppressed", "tables", "send_failed", "write_failed"),
    *(f"drop_{reason.value}" for reason in Drop),
)
"""Every counter that there is, as docs/datapath.md names them."""

Frames = list[bytes]
Datagram = tuple[bytes, int, bytes]
"""Source (four bytes in network order), segment size or 0, payload."""
Sends = Sequence[tuple[bytes, int, int, bytes]]
"""One for each system call: peer (four bytes in network order), UDP port, segment size, payload.  With a segment
size of 0 the payload is one datagram, else a train of datagrams of this size, the last perhaps smaller."""


class Engine(Protocol):
    """Batches in, batches out, as if the kernel took all of it.

    A frame begins with an offload header if the engine was made with `tun_offload`, else it is the bare packet.
    Outgoing and incoming share nothing that either changes, so each may have a thread of its own.
    """

    def replace(self, packed_table: bytes) -> None:
        """Replace the whole table from the next batch on, packed as overlayd_backends.udp.table says.
        ValueError if it is not, and then the old one stays.  Before the first one every packet is dropped."""
        ...

    def outgoing(self, frames: Sequence[bytes], now: float) -> tuple[Sends, Frames]:
        """Handle a batch that was read from the TUN → sends, and frames for the TUN.  `now` in seconds of a
        clock that does not go back."""
        ...

    def refused(
        self, peer: bytes, port: int, segment_size: int, payload: bytes, mtu: int, now: float
    ) -> tuple[Sends, Frames]:
        """Judge a send that the kernel refused, the path to `peer` being `mtu` bytes wide → what is to be
        sent again, fragments allowed, and frames for the TUN."""
        ...

    def incoming(self, datagrams: Sequence[Datagram]) -> Frames:
        """Handle a batch that was received → frames for the TUN."""
        ...

    def counters(self) -> dict[str, int]:
        """Return all of COUNTERS, from 0 on."""
        ...


class PythonEngine:
    """The engine of this package's rules.

    The loop around it asks `depart`, `retry` and `arrive` what to do, and tells `count_…` what the kernel did.
    """

    def __init__(self, tun_offload: bool, udp_segment: bool, coalesce_tcp: bool, coalesce_udp: bool) -> None:
        self._tun_offload = tun_offload
        self._udp_segment = udp_segment
        self._coalesce_tcp = tun_offload and coalesce_tcp
        self._coalesce_udp = tun_offload and coalesce_udp
        self._table = Lookup(EMPTY)
        self._allowance = Allowance()
        # One for each thread: `+=` on a shared one would lose counts.
        self._tx: Counter[str] = Counter()
        self._rx: Counter[str] = Counter()
        self._tables = 0

    def replace(self, packed_table: bytes) -> None:
        """See `Engine`."""
        self._table = Lookup(packed_table)
        self._tables += 1

    # Outgoing

    def outgoing(self, frames: Sequence[bytes], now: float) -> tuple[Sends, Frames]:
        """See `Engine`."""
        sends, messages = self.depart(frames, now)
        for send in sends:
            self.count_sent(send)
        return sends, messages

    def refused(
        self, peer: bytes, port: int, segment_size: int, payload: bytes, mtu: int, now: float
    ) -> tuple[Sends, Frames]:
        """See `Engine`."""
        sends, messages = self.retry(Send(peer, port, segment_size, payload), mtu, now)
        for send in sends:
            self.count_sent(send)
        return sends, messages

    def depart(self, frames: Sequence[bytes], now: float) -> tuple[list[Send], Frames]:
        """Return the sends and the writes for a batch that was read from the TUN."""
        messages: Frames = []
        sends = gather(self._departures(frames, self._table, messages, now), self._udp_segment)
        self._tx["tx_sends"] += len(sends)
        self._tx["tx_trains"] += sum([send.segment_size > 0 for send in sends])
        return sends, messages

    def _departures(
        self, frames: Sequence[bytes], table: Lookup, messages: Frames, now: float
    ) -> Iterator[tuple[Place, bytes]]:
        """Yield every packet that leaves, and the place it leaves for."""
        for frame in frames:
            prefix, packet = (frame[: OFFLOAD.size], frame[OFFLOAD.size :]) if self._tun_offload else (b"", frame)
            header = check_shape(packet, read_from_tun=True)
            if isinstance(header, Drop):
                self._tx[f"drop_{header.value}"] += 1
                continue
            offload = Offload._make(OFFLOAD.unpack(prefix)) if prefix and prefix != NO_OFFLOAD else None
            if offload is not None and (drop := check_offload(packet, header, offload)):
                self._tx[f"drop_{drop.value}"] += 1
                continue
            place = classify_outgoing(header, table)
            if isinstance(place, Drop):
                self._tx[f"drop_{place.value}"] += 1
                if place is Drop.NO_ROUTE:
                    messages += self._told(packet, header, Code.NET, now)
            elif offload is None:
                yield place, packet[: header.length]
            elif offload.segmentation == GSO_NONE:
                yield place, finish(packet, header, offload)
            else:
                self._tx["tx_superpackets"] += 1
                end = find_headers_end(packet, header)
                assert end is not None, "judge_offload saw to it"
                for segment in cut(packet, header, end, offload.segment):
                    yield place, segment

    def retry(self, refused: Send, mtu: int, now: float) -> tuple[list[Send], Frames]:
        """Return the sends, packet by packet, and the writes, for a send that the kernel refused."""
        sends: list[Send] = []
        messages: Frames = []
        too_big = 0
        for packet in take_apart(refused.segment_size, refused.payload):
            header = Header._make(IPV4.unpack_from(packet))
            if header.length + OUTER_HEADERS <= mtu or not header.fragment & DONT_FRAGMENT:
                sends.append(Send(refused.peer, refused.port, 0, packet))
                continue
            if too_big == 0:
                room = max(mtu - OUTER_HEADERS, SMALLEST_MTU)
                messages = self._told(packet, header, Code.FRAGMENTATION_NEEDED, now, room)
            too_big += 1
        self._tx["drop_too_big"] += too_big
        return sends, messages

    def _told(self, packet: bytes, header: Header, code: Code, now: float, mtu: int = 0) -> Frames:
        """Return the frame that tells the sender of this packet; none if nothing may be told, or enough was."""
        if not may_be_told(packet, header):
            return []
        if not self._allowance.take(now):
            self._tx["icmp_suppressed"] += 1
            return []
        self._tx["icmp_sent"] += 1
        return [NO_OFFLOAD * self._tun_offload + unreachable(packet, header, code, mtu)]

    def count_sent(self, send: Send) -> None:
        self._tx["tx_packets"] += send.packets
        self._tx["tx_bytes"] += len(send.payload)

    def count_unsent(self, send: Send) -> None:
        self._tx["send_failed"] += send.packets

    def count_untold(self) -> None:
        self._tx["write_failed"] += 1

    # Incoming

    def incoming(self, datagrams: Sequence[Datagram]) -> Frames:
        """See `Engine`."""
        writes = self.arrive(datagrams)
        for write in writes:
            self.count_written(write)
        return [write.frame for write in writes]

    def arrive(self, datagrams: Sequence[Datagram]) -> list[Write]:
        """Return the writes to the TUN for a batch that was received."""
        table = self._table
        coalescer = Coalescer(NO_OFFLOAD * self._tun_offload, self._coalesce_tcp, self._coalesce_udp)
        for sender, segment_size, payload in datagrams:
            packets = take_apart(segment_size, payload)
            self._rx["rx_trains"] += len(packets) > 1
            for packet in packets:
                if coalescer.takes_next(sender, packet):
                    continue
                header = classify_incoming(packet, sender, table)
                if isinstance(header, Drop):
                    self._rx[f"drop_{header.value}"] += 1
                else:
                    coalescer.add(sender, header, packet[: header.length])
        coalescer.flush()
        self._rx["rx_writes"] += len(coalescer.writes)
        return coalescer.writes

    def count_written(self, write: Write) -> None:
        self._rx["rx_packets"] += write.packets
        self._rx["rx_bytes"] += write.length
        self._rx["rx_superpackets"] += write.packets > 1

    def count_unwritten(self, write: Write) -> None:
        self._rx["write_failed"] += write.packets

    def counters(self) -> dict[str, int]:
        """See `Engine`."""
        counters = {name: self._tx[name] + self._rx[name] for name in COUNTERS}
        counters["tables"] = self._tables
        return counters
