"""Cutting and joining: scapy judges every byte of a segment, and joining undoes what cutting did."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP

from support.datapaths import IMPLEMENTATIONS, cut, engine_of, without_id
from support.packets import CWR, FIN, NO_OFFLOAD, PSH, Packet, streams, superpackets

both = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def segments_by_hand(whole: Packet, size: int) -> list[Packet]:
    """As one would cut, packet by packet, with no thought of speed."""
    starts = range(0, max(len(whole.payload), 1), size)
    parts = [whole.payload[start : start + size] for start in starts]
    segments = []
    for number, (start, part) in enumerate(zip(starts, parts, strict=True)):
        flags = whole.flags
        if number < len(parts) - 1:
            flags &= ~(FIN | PSH)
        if number > 0:
            flags &= ~CWR
        sequence = None if whole.sequence is None else whole.sequence + start
        identifier = whole.identifier + number
        segments.append(replace(whole, payload=part, sequence=sequence, identifier=identifier, flags=flags))
    return segments


@both
@settings(max_examples=60)
@given(superpackets(), st.booleans())
def test_a_superpacket_is_cut_as_by_hand(implementation: str, given_: tuple[Packet, int], ecn: bool) -> None:
    whole, size = given_
    whole = replace(whole, destination="10.244.2.7")
    expected = [bytes(segment) for segment in segments_by_hand(whole, size)]
    assert cut(implementation, [whole.offload(size, ecn=ecn) + b"beyond the end"]) == expected


@both
@settings(max_examples=15)
@given(superpackets().filter(lambda one: len(one[0].payload) <= 6 * one[1]))
def test_scapy_finds_nothing_to_correct(implementation: str, given_: tuple[Packet, int]) -> None:
    """It is let fill in what can be computed, and comes to the same bytes."""
    whole, size = given_
    whole = replace(whole, destination="10.244.2.7")
    segments = cut(implementation, [whole.offload(size)])
    parsed = [IP(segment) for segment in segments]
    for segment, packet in zip(segments, parsed, strict=True):
        transport = packet[UDP if whole.sequence is None else TCP]
        del packet.len, packet.chksum, transport.chksum
        if whole.sequence is None:
            del transport.len
        assert bytes(packet) == segment
    assert b"".join(segment[whole.headers :] for segment in segments) == whole.payload
    assert all((after.id - before.id) & 0xFFFF == 1 for before, after in pairwise(parsed))
    if whole.sequence is not None:
        starts = accumulate((len(segment) - whole.headers for segment in segments), initial=whole.sequence)
        assert [packet[TCP].seq for packet in parsed] == [at & 0xFFFFFFFF for at in starts][:-1]


@both
@settings(max_examples=150)
@given(st.lists(streams(), max_size=4))
def test_what_is_joined_can_be_cut_again(implementation: str, flows: list[list[Packet]]) -> None:
    """Every packet that comes in is written to the TUN as a part of some frame; what it would become if the
    kernel cut that frame again is the packet."""
    packets = [bytes(packet) for flow in flows for packet in flow]
    arriving = engine_of(2, implementation)
    alone = [arriving.incoming([(bytes([10, 99, 0, 1]), 0, packet)]) for packet in packets]
    together = arriving.incoming([(bytes([10, 99, 0, 1]), 0, packet) for packet in packets])
    let_in = [frame.removeprefix(NO_OFFLOAD) for frames in alone for frame in frames]
    assert [without_id(packet) for packet in cut(implementation, together)] == [
        without_id(packet) for packet in let_in
    ]


@both
@settings(max_examples=60)
@given(superpackets())
def test_a_superpacket_arrives_in_no_more_pieces_than_it_left(
    implementation: str, given_: tuple[Packet, int]
) -> None:
    whole, size = given_
    whole = replace(whole, destination="10.244.2.7", flags=0x10, options=b"")
    departing, arriving = engine_of(1, implementation), engine_of(2, implementation)
    sends, _ = departing.outgoing([whole.offload(size)], 0.0)
    frames = arriving.incoming([(bytes([10, 99, 0, 1]), length, payload) for _, _, length, payload in sends])
    assert len(frames) <= len(sends)
    assert b"".join(frame[10 + whole.headers :] for frame in frames) == whole.payload
    joined = [frame for frame in frames if len(frame) > 10 + whole.headers + size]
    assert all(frame[0] == 1 and int.from_bytes(frame[4:6], "little") == size for frame in joined)
