"""Every verdict of docs/datapath.md by an example, from both datapaths alike."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from overlayd_backends.udp.engine import COUNTERS, Engine
from support.datapaths import IMPLEMENTATIONS, engine_of
from support.packets import ACK, FIN, MORE_FRAGMENTS, NO_OFFLOAD, PSH, Packet, checksum, pattern, stream

A, B, C, STRANGER = (bytes([10, 99, 0, number]) for number in (1, 2, 3, 9))
GOOD = Packet(payload=b"hello", sequence=7)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def counted(engine: Engine) -> dict[str, int]:
    """What was counted, but for the one table that every engine here was given."""
    counters = engine.counters()
    assert set(counters) == set(COUNTERS)
    return {name: count for name, count in counters.items() if count and name != "tables"}


def with_offload(packet: bytes, *fields: int) -> bytes:
    return struct.pack("<BBHHHH", *fields) + packet


# Outgoing ------------------------------------------------------------------------------------------------------

PLAIN = bytes(GOOD)
CUT = bytes(replace(GOOD, payload=pattern(100)))

DROPPED_GOING_OUT = {
    "nothing": (b"", "truncated"),
    "half an offload header": (bytes(5), "truncated"),
    "19 bytes": (NO_OFFLOAD + PLAIN[:19], "truncated"),
    "ipv6": (NO_OFFLOAD + b"\x60" + bytes(39), "ipv6"),
    "version 5": (NO_OFFLOAD + b"\x55" + PLAIN[1:], "bad_header"),
    "a header of 16 bytes": (NO_OFFLOAD + b"\x44" + PLAIN[1:], "bad_header"),
    "less in all than in the header": (NO_OFFLOAD + PLAIN[:2] + b"\0\x13" + PLAIN[4:], "bad_header"),
    "a header that isn't all there": (NO_OFFLOAD + b"\x4f" + PLAIN[1:2] + b"\0\x3c" + PLAIN[4:40], "truncated"),
    "shorter than it says": (NO_OFFLOAD + PLAIN[:-1], "truncated"),
    "segmentation of a kind unknown": (with_offload(CUT, 1, 3, 40, 10, 20, 16), "bad_offload"),
    "segmentation for IPv6": (with_offload(CUT, 1, 4, 40, 10, 20, 16), "bad_offload"),
    "segmentation of TCP as UDP": (with_offload(CUT, 1, 5, 28, 10, 20, 6), "bad_offload"),
    "segments of nothing": (with_offload(CUT, 1, 1, 40, 0, 20, 16), "bad_offload"),
    "segmentation of a fragment": (
        with_offload(bytes(replace(GOOD, fragment=MORE_FRAGMENTS)), 1, 1, 40, 10, 20, 16),
        "bad_offload",
    ),
    "segmentation without a whole TCP header": (
        with_offload(bytes(Packet(protocol=6, payload=bytes(19))), 0, 1, 40, 10, 20, 16),
        "bad_offload",
    ),
    "segmentation of a TCP header of 4 bytes": (
        with_offload(bytes(Packet(protocol=6, payload=bytes(12) + b"\x10" + bytes(30))), 0, 1, 40, 10, 20, 16),
        "bad_offload",
    ),
    "segmentation of a TCP header beyond the packet": (
        with_offload(bytes(Packet(protocol=6, payload=bytes(12) + b"\xf0" + bytes(30))), 0, 1, 40, 10, 20, 16),
        "bad_offload",
    ),
    "segmentation without a whole UDP header": (
        with_offload(bytes(Packet(protocol=17, payload=bytes(7))), 0, 5, 28, 10, 20, 6),
        "bad_offload",
    ),
    "a checksum in the header": (with_offload(PLAIN, 1, 0, 0, 0, 19, 16), "bad_offload"),
    "a checksum beyond the packet": (
        with_offload(PLAIN, 1, 0, 0, 0, 20, len(PLAIN) - 21),
        "bad_offload",
    ),
    "a checksum beyond the packet, within the frame": (
        with_offload(PLAIN + bytes(8), 1, 0, 0, 0, 20, len(PLAIN) - 21),
        "bad_offload",
    ),
    "for this node": (NO_OFFLOAD + bytes(replace(GOOD, destination="10.244.1.9")), "own_destination"),
    "for nobody": (NO_OFFLOAD + bytes(replace(GOOD, destination="10.244.9.9", source="0.0.0.0")), "no_route"),
}


@pytest.mark.parametrize("case", DROPPED_GOING_OUT)
def test_a_packet_that_may_not_leave(implementation: str, case: str) -> None:
    frame, reason = DROPPED_GOING_OUT[case]
    engine = engine_of(1, implementation)
    assert engine.outgoing([frame], 0.0) == ([], [])
    assert counted(engine) == {f"drop_{reason}": 1}


def test_a_packet_leaves_as_it_is(implementation: str) -> None:
    engine = engine_of(1, implementation)
    sends, messages = engine.outgoing([NO_OFFLOAD + PLAIN + b"trailer"], 0.0)
    assert (list(sends), messages) == ([(B, 8285, 0, PLAIN)], [])
    assert counted(engine) == {"tx_packets": 1, "tx_bytes": len(PLAIN), "tx_sends": 1}


def test_an_unfinished_checksum_is_finished(implementation: str) -> None:
    for packet in (GOOD, replace(GOOD, sequence=None), replace(GOOD, payload=b"odd", sequence=None)):
        sends, _ = engine_of(1, implementation).outgoing([packet.offload(checksum_only=True) + b"more"], 0.0)
        assert [payload for *_, payload in sends] == [bytes(packet)]


def test_a_udp_checksum_of_zero_is_sent_as_ones(implementation: str) -> None:
    """RFC 768: 0 means that there is none."""
    empty = Packet(payload=bytes(2))
    without = struct.unpack("!H", bytes(replace(empty, payload=b"\0\0"))[26:28])[0]
    packet = replace(empty, payload=struct.pack("!H", without))
    assert bytes(packet)[26:28] == b"\xff\xff"
    sends, _ = engine_of(1, implementation).outgoing(
        [packet.offload(checksum_only=True), packet.offload(segment=2)], 0.0
    )
    assert [payload for *_, payload in sends] == [bytes(packet) * 2]


def test_without_offload_a_frame_is_the_bare_packet(implementation: str) -> None:
    bare = (False, True, True, True)
    sends, _ = engine_of(1, implementation, bare).outgoing([PLAIN], 0.0)
    assert [payload for *_, payload in sends] == [PLAIN]
    incoming = engine_of(2, implementation, bare)
    packets = [bytes(packet) for packet in stream(GOOD, 100, 5)]
    assert incoming.incoming([(A, 0, packet) for packet in packets]) == packets
    _, messages = engine_of(1, implementation, bare).outgoing([bytes(replace(GOOD, destination="10.9.9.9"))], 0.0)
    assert [message[0] for message in messages] == [0x45]


# Trains --------------------------------------------------------------------------------------------------------


def sizes_sent(implementation: str, frames: list[bytes], udp_segment: bool = True) -> list[tuple[bytes, int, int]]:
    sends, _ = engine_of(1, implementation, (True, udp_segment, True, True)).outgoing(frames, 0.0)
    return [(peer, size, len(payload)) for peer, _, size, payload in sends]


def frames_of(first: Packet, size: int, count: int, last: int | None = None) -> list[bytes]:
    return [NO_OFFLOAD + bytes(packet) for packet in stream(first, size, count, last)]


def test_equal_packets_to_one_peer_leave_together(implementation: str) -> None:
    to_c = replace(GOOD, destination="10.244.3.1")
    frames = [
        *frames_of(GOOD, 60, 3),
        *frames_of(GOOD, 60, 3, last=59),
        *frames_of(GOOD, 60, 1),
        *frames_of(GOOD, 61, 1),
        *frames_of(to_c, 61, 2),
    ]
    frames.insert(1, b"dropped, which ends nothing")
    assert sizes_sent(implementation, frames) == [(B, 100, 599), (B, 0, 100), (B, 0, 101), (C, 101, 202)]
    assert len(sizes_sent(implementation, frames, udp_segment=False)) == 10


def test_a_train_has_64_packets_and_65000_bytes_at_most(implementation: str) -> None:
    assert sizes_sent(implementation, frames_of(GOOD, 60, 65)) == [(B, 100, 6400), (B, 0, 100)]
    assert sizes_sent(implementation, frames_of(GOOD, 1260, 51)) == [(B, 1300, 65000), (B, 0, 1300)]
    assert sizes_sent(implementation, frames_of(GOOD, 1343, 47)) == [(B, 1383, 46 * 1383), (B, 0, 1383)]
    assert sizes_sent(implementation, frames_of(GOOD, 64960, 2)) == [(B, 0, 65000)] * 2
    assert sizes_sent(implementation, frames_of(GOOD, 65400, 2, last=10)) == [(B, 0, 65440), (B, 0, 50)]


def test_the_tail_of_a_superpacket_waits_for_the_next(implementation: str) -> None:
    whole = replace(GOOD, payload=pattern(1400 * 46))
    assert sizes_sent(implementation, [whole.offload(1400)] * 2) == [
        (B, 1440, 45 * 1440),
        (B, 1440, 45 * 1440),
        (B, 1440, 2 * 1440),
    ]


# What the path refuses -----------------------------------------------------------------------------------------


def test_what_is_too_long_for_the_path_is_told(implementation: str) -> None:
    engine = engine_of(1, implementation)
    packets = [bytes(packet) for packet in stream(GOOD, 1000, 4, last=100)]
    packets[1] = bytes(replace(GOOD, payload=pattern(1000), fragment=0))
    sends, messages = engine.refused(B, 8285, len(packets[0]), b"".join(packets), 1000, 0.0)
    assert list(sends) == [(B, 8285, 0, packets[1]), (B, 8285, 0, packets[3])]
    assert [message_in(message) for message in messages] == [(3, 4, 1000 - 28, packets[0][:28])]
    again = {"tx_packets": 2, "tx_bytes": len(packets[1]) + len(packets[3])}
    assert counted(engine) == {"drop_too_big": 2, "icmp_sent": 1, **again}


def test_a_packet_that_just_fits_is_sent_again(implementation: str) -> None:
    for mtu, reason in ((len(PLAIN) + 28, ""), (len(PLAIN) + 27, "drop_too_big")):
        engine = engine_of(1, implementation)
        sends, _ = engine.refused(B, 8285, 0, PLAIN, mtu, 0.0)
        assert bool(sends) is not bool(reason)
        assert counted(engine).get("drop_too_big", 0) == bool(reason)


def test_no_path_is_told_to_be_narrower_than_any_link(implementation: str) -> None:
    big = bytes(replace(GOOD, payload=bytes(900)))
    _, messages = engine_of(1, implementation).refused(B, 8285, 0, big, 40, 0.0)
    assert [message_in(message)[2] for message in messages] == [68]


# ICMP ----------------------------------------------------------------------------------------------------------

LOST = replace(GOOD, destination="10.244.9.9")
"""For nobody."""


def message_in(frame: bytes) -> tuple[int, int, int, bytes]:
    """Type, code, MTU and quotation of a message of the datapath's own; the rest is as it must be."""
    offload, header, message = frame[:10], frame[10:30], frame[30:]
    assert offload == NO_OFFLOAD
    assert header[:10] == b"\x45\xc0" + struct.pack("!HHHBB", len(frame) - 10, 0, 0x4000, 64, 1)
    assert checksum(header) == checksum(message) == 0
    kind, code, _, unused, mtu = struct.unpack("!BBHHH", message[:8])
    assert unused == 0
    quoted = message[8:]
    assert header[12:] == quoted[16:20] + quoted[12:16]
    return kind, code, mtu, quoted


def test_a_sender_without_a_way_is_told(implementation: str) -> None:
    for packet in (LOST, replace(LOST, options=b"\x94\x04\0\0"), replace(LOST, protocol=47, payload=b"1234")):
        engine = engine_of(1, implementation)
        _, messages = engine.outgoing([NO_OFFLOAD + bytes(packet) + b"trailer"], 0.0)
        quoted = bytes(packet)[: 20 + len(packet.options) + 8]
        assert [message_in(message) for message in messages] == [(3, 0, 0, quoted)]
        assert counted(engine) == {"drop_no_route": 1, "icmp_sent": 1}


UNTOLD = {
    "a later fragment": replace(LOST, fragment=1),
    **{
        f"ICMP type {kind}": replace(LOST, protocol=1, payload=bytes([kind]) + bytes(7))
        for kind in (3, 4, 5, 11, 12)
    },
    "ICMP without a type": replace(LOST, protocol=1, payload=b""),
    **{f"from {source}": replace(LOST, source=source) for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1")},
    **{f"to {group}": replace(LOST, destination=group) for group in ("224.0.0.251", "255.255.255.255")},
}


@pytest.mark.parametrize("case", UNTOLD)
def test_some_senders_are_not_told(implementation: str, case: str) -> None:
    engine = engine_of(1, implementation)
    assert engine.outgoing([NO_OFFLOAD + bytes(UNTOLD[case])], 0.0) == ([], [])
    assert counted(engine) == {"drop_no_route": 1}


def test_others_are(implementation: str) -> None:
    first_fragment = replace(LOST, fragment=MORE_FRAGMENTS)
    ping = replace(LOST, protocol=1, payload=b"\x08" + bytes(7))
    for packet in (first_fragment, ping):
        _, messages = engine_of(1, implementation).outgoing([NO_OFFLOAD + bytes(packet)], 0.0)
        assert len(messages) == 1


def test_a_hundred_messages_a_second(implementation: str) -> None:
    engine = engine_of(1, implementation)
    frames = [NO_OFFLOAD + bytes(LOST)] * 60
    told = [len(engine.outgoing(frames, now)[1]) for now in (10.0, 10.5, 10.99, 11.0, 11.5, 12.5)]
    assert told == [60, 40, 0, 60, 40, 60]
    assert counted(engine) == {"drop_no_route": 360, "icmp_sent": 260, "icmp_suppressed": 100}


# Incoming ------------------------------------------------------------------------------------------------------

INSIDE = replace(GOOD, source="10.244.1.5", destination="10.244.2.7")
ARRIVED = bytes(INSIDE)

DROPPED_COMING_IN = {
    "from a stranger": (STRANGER, ARRIVED, "unknown_sender"),
    "from this node itself": (B, ARRIVED, "unknown_sender"),
    "an empty one from a stranger": (STRANGER, b"", "unknown_sender"),
    "nothing": (A, b"", "truncated"),
    "19 bytes": (A, ARRIVED[:19], "truncated"),
    "version 6": (A, b"\x65" + ARRIVED[1:], "bad_header"),
    "a header of 16 bytes": (A, b"\x44" + ARRIVED[1:], "bad_header"),
    "less in all than in the header": (A, ARRIVED[:2] + b"\0\x13" + ARRIVED[4:], "bad_header"),
    "a wrong header checksum": (A, bytes(replace(INSIDE, header_off_by=1)), "bad_header"),
    "shorter than it says, and the checksum wrong": (A, bytes(replace(INSIDE, header_off_by=1))[:-1], "truncated"),
    "the source another peer's": (A, bytes(replace(INSIDE, source="10.244.3.5")), "bad_source"),
    "the source ours": (A, bytes(replace(INSIDE, source="10.244.2.5")), "bad_source"),
    "the source of no node": (A, bytes(replace(INSIDE, source="10.244.9.5")), "bad_source"),
    "the destination another peer's": (A, bytes(replace(INSIDE, destination="10.244.3.7")), "not_ours"),
    "the destination the sender's": (A, bytes(replace(INSIDE, destination="10.244.1.7")), "not_ours"),
}


@pytest.mark.parametrize("case", DROPPED_COMING_IN)
def test_a_packet_that_may_not_come_in(implementation: str, case: str) -> None:
    sender, packet, reason = DROPPED_COMING_IN[case]
    engine = engine_of(2, implementation)
    assert engine.incoming([(sender, 0, packet)]) == []
    assert counted(engine) == {f"drop_{reason}": 1}


def test_a_packet_comes_in_as_it_is(implementation: str) -> None:
    engine = engine_of(2, implementation)
    assert engine.incoming([(A, 0, ARRIVED + b"trailer")]) == [NO_OFFLOAD + ARRIVED]
    assert counted(engine) == {"rx_packets": 1, "rx_bytes": len(ARRIVED), "rx_writes": 1}


def test_each_packet_of_a_train_is_judged(implementation: str) -> None:
    packets = [bytes(packet) for packet in stream(INSIDE, 60, 4, last=30)]
    packets[1] = bytes(replace(INSIDE, payload=pattern(60), source="10.244.3.5"))
    engine = engine_of(2, implementation)
    frames = engine.incoming([(A, 100, b"".join(packets))])
    assert [len(frame) for frame in frames] == [10 + 100, 10 + 40 + 60 + 30]
    assert counted(engine) == {
        "rx_packets": 3,
        "rx_bytes": 270,
        "rx_trains": 1,
        "rx_writes": 2,
        "rx_superpackets": 1,
        "drop_bad_source": 1,
    }


def test_a_push_ends_a_superpacket_and_stands_in_it(implementation: str) -> None:
    packets = stream(INSIDE, 60, 6)
    packets[2] = replace(packets[2], flags=ACK | PSH)
    packets[5] = replace(packets[5], flags=ACK | FIN)
    frames = engine_of(2, implementation).incoming([(A, 0, bytes(packet)) for packet in packets])
    assert [(len(frame) - 50, frame[10 + 33]) for frame in frames] == [
        (180, ACK | PSH),
        (120, ACK),
        (60, ACK | FIN),
    ]


DATAGRAM = Packet(payload=pattern(60))


def rewritten(packet: Packet, place: int, value: int) -> bytes:
    """With 16 bits changed, and the transport checksum still right."""
    content = bytearray(bytes(packet))
    before = struct.unpack_from("!H", content, place)[0]
    struct.pack_into("!H", content, place, value)
    at = 26 if packet.sequence is None else 36
    total = (struct.unpack_from("!H", content, at)[0] + before + (~value & 0xFFFF)) % 0xFFFF
    struct.pack_into("!H", content, at, total)
    return bytes(content)


def without_checksum_by_chance() -> bytes:
    """A datagram without a checksum (0) whose checksum would be 0."""
    sum_of_rest = struct.unpack("!H", bytes(replace(DATAGRAM, payload=bytes(60)))[26:28])[0]
    packet = bytearray(bytes(replace(DATAGRAM, payload=struct.pack("!H", sum_of_rest) + bytes(58))))
    assert packet[26:28] == b"\xff\xff"
    packet[26:28] = b"\0\0"
    return bytes(packet)


def two(first: Packet, **changes: Any) -> list[bytes]:
    """Two that follow one another, alike in what is changed."""
    size = len(first.payload)
    return [bytes(replace(one, **{"payload": pattern(size), **changes})) for one in stream(first, size, 2)]


NEVER_JOINED = {
    "bits beside the data offset": two(INSIDE, reserved=1),
    "no acknowledgement": two(INSIDE, flags=0),
    "an urgent byte": two(INSIDE, flags=ACK | 0x20),
    "no payload": two(INSIDE, payload=b"", sequence=7),
    "IP options": two(INSIDE, options=b"\x94\x04\0\0"),
    "first fragments": two(INSIDE, fragment=MORE_FRAGMENTS),
    "the reserved flag": two(INSIDE, fragment=0x8000),
    "wrong checksums": two(INSIDE, checksum_off_by=1),
    "TCP headers of 4 bytes": [rewritten(packet, 32, 0x1010) for packet in stream(INSIDE, 60, 2)],
    "datagrams without a checksum": two(DATAGRAM, udp_checksum=False),
    "some whose checksum would be 0": [without_checksum_by_chance()] * 2,
    "datagrams that say that they are shorter": [rewritten(packet, 24, 40) for packet in stream(DATAGRAM, 60, 2)],
    "datagrams without payload": two(DATAGRAM, payload=b""),
    "another protocol": two(DATAGRAM, protocol=47),
}


def test_two_that_follow_one_another_are_joined(implementation: str) -> None:
    for first in (INSIDE, DATAGRAM):
        frames = engine_of(2, implementation).incoming([(A, 0, packet) for packet in two(first)])
        assert [len(frame) for frame in frames] == [10 + first.headers + 2 * len(first.payload)]


@pytest.mark.parametrize("case", NEVER_JOINED)
def test_what_is_never_joined(implementation: str, case: str) -> None:
    """Not even with just the packet that would follow."""
    packets = NEVER_JOINED[case]
    frames = engine_of(2, implementation).incoming([(A, 0, packet) for packet in packets])
    assert frames == [NO_OFFLOAD + packet for packet in packets]


LOOKS_LIKE_THE_NEXT: dict[str, tuple[Packet, bytes, Callable[[Packet], bytes], str | None, list[int]]] = {
    "a wrong checksum": (INSIDE, A, lambda one: bytes(replace(one, checksum_off_by=1)), None, [2, 1, 1]),
    "a wrong header checksum": (INSIDE, A, lambda one: bytes(replace(one, header_off_by=1)), "bad_header", [2, 1]),
    "two wrong checksums that make up for one another": (
        INSIDE,
        A,
        lambda one: bytes(replace(one, header_off_by=1, checksum_off_by=-1)),
        "bad_header",
        [2, 1],
    ),
    "another sender": (INSIDE, C, bytes, "bad_source", [2, 1]),
    "a stranger": (INSIDE, STRANGER, bytes, "unknown_sender", [2, 1]),
    "a wrong checksum of a datagram": (
        DATAGRAM,
        A,
        lambda one: bytes(replace(one, checksum_off_by=1)),
        None,
        [2, 1, 1],
    ),
    "a datagram without a checksum": (
        DATAGRAM,
        A,
        lambda one: bytes(replace(one, udp_checksum=False)),
        None,
        [2, 1, 1],
    ),
    "one whose checksum would be 0": (DATAGRAM, A, lambda one: without_checksum_by_chance(), None, [2, 1, 1]),
    "one that says that it is shorter": (DATAGRAM, A, lambda one: rewritten(one, 24, 40), None, [2, 1, 1]),
    "the same again": (INSIDE, A, lambda one: bytes(replace(one, sequence=7)), None, [2, 1, 1]),
}


@pytest.mark.parametrize("case", LOOKS_LIKE_THE_NEXT)
def test_what_only_looks_like_the_next(implementation: str, case: str) -> None:
    """The third of four is not what it seems; how many packets each frame has in the end."""
    first, sender, spoil, reason, frames = LOOKS_LIKE_THE_NEXT[case]
    packets = stream(first, 60, 4)
    arriving = [(A, 0, bytes(packet)) for packet in packets]
    arriving[2] = (sender, 0, spoil(packets[2]))
    engine = engine_of(2, implementation)
    got = [(len(frame) - 10 - first.headers) // 60 for frame in engine.incoming(arriving)]
    assert got == frames
    assert sum(count for name, count in counted(engine).items() if name.startswith("drop_")) == (
        reason is not None
    )
    assert reason is None or counted(engine)[f"drop_{reason}"] == 1


def test_a_superpacket_has_64_packets_and_65535_bytes_at_most(implementation: str) -> None:
    for size, count, frames in ((1, 70, [64, 6]), (13_099, 6, [5, 1]), (13_100, 6, [4, 2])):
        arriving = [(A, 0, bytes(packet)) for packet in stream(INSIDE, size, count)]
        got = engine_of(2, implementation).incoming(arriving)
        assert [(len(frame) - 50) // size for frame in got] == frames


# The table -----------------------------------------------------------------------------------------------------

MALFORMED = {
    "nothing": b"",
    "fewer rows than it says": struct.pack("=II", 1, 0),
    "more rows than it says": struct.pack("=IIII", 0, 0, 1, 2),
    "more rows than there can be": struct.pack("=II", 0xFFFFFFFF, 0xFFFFFFFF),
    "an end before the beginning": struct.pack("=IIII", 1, 0, 5, 4),
    "own prefixes out of order": struct.pack("=IIIIII", 2, 0, 8, 9, 1, 2),
    "own prefixes that overlap": struct.pack("=IIIIII", 2, 0, 1, 5, 5, 9),
    "entries out of order": struct.pack("=IIIIIHxxIIIHxx", 0, 2, 8, 9, 7, 1, 1, 2, 7, 1),
    "entries that overlap": struct.pack("=IIIIIHxxIIIHxx", 0, 2, 1, 5, 7, 1, 5, 6, 7, 1),
    "an entry within what is own": struct.pack("=IIIIIIIHxx", 1, 1, 1, 9, 3, 4, 7, 1),
    "an own prefix within an entry": struct.pack("=IIIIIIIHxx", 1, 1, 3, 4, 1, 9, 7, 1),
    "port 0": struct.pack("=IIIIIHxx", 0, 1, 1, 2, 7, 0),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_table_is_refused_and_the_old_one_stays(implementation: str, case: str) -> None:
    engine = engine_of(1, implementation)
    with pytest.raises(ValueError, match=r"\w"):
        engine.replace(MALFORMED[case])
    assert len(engine.outgoing([NO_OFFLOAD + PLAIN], 0.0)[0]) == 1
    assert engine.counters()["tables"] == 1
