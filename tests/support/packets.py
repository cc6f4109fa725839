"""Packets for tests, made by hand and byte by byte, so that they owe nothing to the code that they test."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import strategies as st

FIN, SYN, PSH, ACK, URG, ECE, CWR = 0x01, 0x02, 0x08, 0x10, 0x20, 0x40, 0x80
DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000
NO_OFFLOAD = bytes(10)


def checksum(data: bytes) -> int:
    """RFC 1071: the words' sum, its carries added until there are none."""
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


_PATTERN = bytes(place % 251 for place in range(70_000))


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ from place to place and from seed to seed, so that whatever moves shows."""
    return _PATTERN[seed : seed + size]


@dataclass(frozen=True)
class Packet:
    """An IPv4 packet, right in all its parts; with a `sequence` TCP, else UDP, or of the given `protocol`.

    `checksum_off_by` spoils the transport's checksum, `header_off_by` the header's.
    """

    source: str = "10.244.1.5"
    destination: str = "10.244.2.7"
    payload: bytes = field(default=b"", repr=False)
    sequence: int | None = None
    protocol: int | None = None
    tos: int = 0
    identifier: int = 1
    fragment: int = DONT_FRAGMENT
    ttl: int = 64
    options: bytes = b""
    source_port: int = 40000
    destination_port: int = 5201
    acknowledgement: int = 77
    flags: int = ACK
    reserved: int = 0
    window: int = 501
    urgent: int = 0
    tcp_options: bytes = b""
    checksum_off_by: int = 0
    header_off_by: int = 0
    udp_checksum: bool = True

    def __bytes__(self) -> bytes:
        transport = self._transport()
        protocol = self._protocol()
        size = 20 + len(self.options)
        header = struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | size // 4,
            self.tos,
            size + len(transport),
            self.identifier & 0xFFFF,
            self.fragment,
            self.ttl,
            protocol,
            0,
            *self._addresses(),
        )
        header += self.options
        right = (checksum(header) + self.header_off_by) & 0xFFFF
        return header[:10] + struct.pack("!H", right) + header[12:] + transport

    @property
    def headers(self) -> int:
        """Bytes before the payload."""
        if self.protocol is not None:
            return 20 + len(self.options)
        return 20 + len(self.options) + (8 if self.sequence is None else 20 + len(self.tcp_options))

    def offload(self, segment: int = 0, checksum_only: bool = False, ecn: bool = False) -> bytes:
        """The frame in which a TUN device hands this packet over: to be cut into payloads of `segment` bytes, or
        with its checksum still to be finished."""
        is_tcp, start = self.sequence is not None, 20 + len(self.options)
        kind = 0 if checksum_only else (1 if is_tcp else 5) | (0x80 if ecn else 0)
        offset = 16 if is_tcp else 6
        packet = bytearray(bytes(self))
        pseudo = self._pseudo(len(packet) - start)
        packet[start + offset : start + offset + 2] = struct.pack("!H", ~checksum(pseudo) & 0xFFFF)
        return struct.pack("<BBHHHH", 1, kind, self.headers, segment, start, offset) + packet

    def _transport(self) -> bytes:
        if self.protocol is not None:
            return self.payload
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.sequence is None:
            head, at = ports + struct.pack("!HH", 8 + len(self.payload), 0), 6
        else:
            offset = (20 + len(self.tcp_options)) // 4 << 4 | self.reserved
            head = ports + struct.pack("!II", self.sequence & 0xFFFFFFFF, self.acknowledgement)
            head += struct.pack("!BBHHH", offset, self.flags, self.window, 0, self.urgent) + self.tcp_options
            at = 16
        whole = head + self.payload
        right = checksum(self._pseudo(len(whole)) + whole)
        if self.sequence is None:
            right = (right or 0xFFFF) if self.udp_checksum else 0
        return whole[:at] + struct.pack("!H", (right + self.checksum_off_by) & 0xFFFF) + whole[at + 2 :]

    def _protocol(self) -> int:
        return self.protocol if self.protocol is not None else 17 if self.sequence is None else 6

    def _pseudo(self, length: int) -> bytes:
        return b"".join(self._addresses()) + struct.pack("!HH", self._protocol(), length)

    def _addresses(self) -> tuple[bytes, bytes]:
        return IPv4Address(self.source).packed, IPv4Address(self.destination).packed


def stream(first: Packet, size: int, count: int, last: int | None = None) -> list[Packet]:
    """Packets as one sender sends them one after the other, with `size` bytes of payload, the last with `last`."""
    sizes = [size] * (count - 1) + [size if last is None else last]
    return [
        replace(
            first,
            payload=pattern(length, number),
            identifier=first.identifier + number,
            sequence=None if first.sequence is None else first.sequence + number * size,
        )
        for number, length in enumerate(sizes)
    ]


# What Hypothesis makes -----------------------------------------------------------------------------------------


def _with(**changes: Any) -> Callable[[Packet], Packet]:
    return lambda packet: replace(packet, **changes)


_ODDITIES = (
    *(_with(flags=ACK | flag) for flag in (0, FIN, SYN, PSH, URG, ECE, CWR)),
    *(_with(flags=0), _with(reserved=1), _with(acknowledgement=78), _with(window=500), _with(urgent=9)),
    *(_with(tos=3), _with(ttl=63), _with(fragment=0), _with(fragment=MORE_FRAGMENTS), _with(fragment=185)),
    *(_with(fragment=0x8000), _with(identifier=5), _with(sequence=9), _with(protocol=1)),
    *(_with(source_port=40001), _with(destination_port=5202)),
    *(_with(checksum_off_by=1), _with(header_off_by=1), _with(udp_checksum=False)),
    *(_with(payload=b""), _with(payload=b"x"), _with(options=b"\x94\x04\0\0"), _with(tcp_options=bytes(12))),
    *(_with(destination=other) for other in ("10.244.1.9", "10.244.3.3", "10.250.0.1")),
    *(_with(source=other) for other in ("10.244.1.6", "10.244.3.9", "224.0.0.1")),
)
"""What may be wrong, or just different, with one packet of a stream."""

_OPTIONS = (b"", b"\1\1\x08\x0a\0\0\0\7\0\0\0\x09", b"\1\1\1\0")


@st.composite
def streams(draw: st.DrawFn, transports: Sequence[str] = ("tcp", "udp")) -> list[Packet]:
    """Packets of one flow, a few of them odd."""
    is_tcp = draw(st.sampled_from(transports)) == "tcp"
    first = Packet(
        sequence=draw(st.sampled_from([0, 1000, 0xFFFFFF00])) if is_tcp else None,
        tcp_options=draw(st.sampled_from(_OPTIONS)) if is_tcp else b"",
        identifier=draw(st.sampled_from([0, 9, 0xFFFE])),
        fragment=draw(st.sampled_from([0, DONT_FRAGMENT])),
        source=draw(st.sampled_from(["10.244.1.5", "10.244.1.77"])),
    )
    size = draw(st.sampled_from([1, 2, 33, 1400]))
    count = draw(st.integers(1, 6) | st.sampled_from([48, 70]))
    packets = stream(first, size, count, draw(st.none() | st.integers(1, size + 1)))
    odd = st.tuples(st.integers(0, count - 1), st.sampled_from(_ODDITIES))
    for place, oddity in draw(st.lists(odd, max_size=2)):
        packets[place] = oddity(packets[place])
    if draw(st.sampled_from([False, False, False, True])):
        common = draw(st.sampled_from(_ODDITIES))
        packets = [replace(common(packet), payload=packet.payload) for packet in packets]
    return packets


@st.composite
def superpackets(draw: st.DrawFn) -> tuple[Packet, int]:
    """A packet that is to be cut, and the payload of each segment in bytes."""
    is_tcp = draw(st.booleans())
    segment = draw(st.sampled_from([1, 3, 100, 1400]))
    count = draw(st.sampled_from([0, 1, 2, 5, 44, 46]))
    length = max(0, count * segment - draw(st.integers(0, segment - 1)))
    packet = Packet(
        sequence=draw(st.integers(0, 0xFFFFFFFF)) if is_tcp else None,
        payload=pattern(length, draw(st.integers(0, 255))),
        flags=draw(st.integers(0, 255)),
        tos=draw(st.integers(0, 255)),
        identifier=draw(st.integers(0, 0xFFFF)),
        fragment=draw(st.sampled_from([0, DONT_FRAGMENT])),
        options=draw(st.sampled_from([b"", b"\x94\x04\0\0"])),
        tcp_options=draw(st.sampled_from(_OPTIONS)) if is_tcp else b"",
        destination=draw(st.sampled_from(["10.244.2.7", "10.244.2.7", "10.244.3.1", "10.244.1.9", "10.9.9.9"])),
    )
    return packet, segment


def spoilt(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The same with something wrong: cut short, made longer, single bytes changed."""

    @st.composite
    def spoil(draw: st.DrawFn) -> bytes:
        good = bytearray(draw(data))
        for place, value in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4)):
            if place < len(good):
                good[place] = value
        cut = draw(st.none() | st.integers(0, 70))
        return bytes(good[:cut]) + draw(st.binary(max_size=3))

    return spoil()


_plain_frames = streams().map(lambda packets: [NO_OFFLOAD + bytes(packet) for packet in packets])
_unfinished_frames = streams().map(lambda packets: [packet.offload(checksum_only=True) for packet in packets])
_super_frames = superpackets().map(lambda one: [one[0].offload(one[1])])
_spoilt_frames = spoilt(
    st.one_of(_plain_frames, _unfinished_frames, _super_frames).map(lambda frames: frames[0])
).map(lambda frame: [frame])

frame_batches: st.SearchStrategy[list[bytes]] = st.lists(
    st.one_of(_plain_frames, _unfinished_frames, _super_frames, _spoilt_frames), max_size=5
).map(lambda parts: [frame for part in parts for frame in part])
"""What may be read from a TUN device with offload, and what never will be."""


def take_apart(segment_size: int, payload: bytes) -> Iterator[bytes]:
    for begin in range(0, len(payload), segment_size or max(1, len(payload))):
        yield payload[begin : begin + (segment_size or len(payload))]


SENDERS = tuple(IPv4Address(f"10.99.0.{number}").packed for number in (1, 2, 3, 9))


@st.composite
def datagrams(draw: st.DrawFn) -> list[tuple[bytes, int, bytes]]:
    """What may be received together: trains, single packets, and what strangers send."""
    sender = draw(st.sampled_from(SENDERS[:1] * 4 + SENDERS))
    packets = [bytes(packet) for packet in draw(streams())]
    if draw(st.booleans()):
        return [(sender, draw(st.sampled_from([0, 1400])), packet) for packet in packets]
    if draw(st.booleans()):
        return [(sender, draw(st.sampled_from([0, 0, 20, 64])), draw(spoilt(st.just(packets[0]))))]
    size = len(packets[0])
    train: list[bytes] = []
    for packet in packets:  # as UDP_GRO joins: all as long as the first, the last perhaps shorter
        if len(packet) > size or sum(map(len, train)) + len(packet) > 65_000:
            break
        train.append(packet)
        if len(packet) < size:
            break
    return [(sender, size, b"".join(train))]


datagram_batches: st.SearchStrategy[list[tuple[bytes, int, bytes]]] = st.lists(datagrams(), max_size=5).map(
    lambda parts: [one for part in parts for one in part]
)


# Where they go -------------------------------------------------------------------------------------------------

NODES = {number: IPv4Network(f"10.244.{number}.0/24") for number in (1, 2, 3)}
"""Three nodes, at 10.99.0.1 and so on, with a subnet each."""
