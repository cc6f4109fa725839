"""The C and the Python datapath give the same for the same: frames, sends, verdicts and counters.

Hypothesis makes the streams: flows of TCP and UDP with an odd packet here and there, superpackets, fragments,
options, garbage, from peers and strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd_backends.udp.engine import Engine
from overlayd_backends.udp.table import Table, TableEntry
from support.datapaths import IMPLEMENTATIONS, cut, engine_class, engine_of, table_of, without_id
from support.packets import (
    SENDERS,
    Packet,
    datagram_batches,
    frame_batches,
    streams,
    superpackets,
    take_apart,
)

Call = Callable[[Engine], object]

switches = st.sampled_from([*[(True, True, True, True)] * 16, *product([False, True], repeat=4)])
moments = st.sampled_from([0.0, 0.5, 1.0])
tables = st.sampled_from(
    [
        *[table_of(1)] * 3,
        *[table_of(2)] * 5,
        Table(),
        Table(
            (IPv4Network("10.244.1.0/25"), IPv4Network("10.244.2.0/24")),
            (
                TableEntry(IPv4Network("10.244.1.128/25"), IPv4Address("10.99.0.1"), 1),
                TableEntry(IPv4Network("0.0.0.0/8"), IPv4Address("10.99.0.1"), 0xFFFF),
                TableEntry(IPv4Network("10.244.3.0/24"), IPv4Address("10.99.0.3"), 8285),
                TableEntry(IPv4Network("224.0.0.0/3"), IPv4Address("10.99.0.3"), 8286),
            ),
        ),
    ]
)


def replacement(table: Table) -> tuple[str, Call]:
    return "replace", lambda engine: engine.replace(table.packed())


replacements = tables.map(replacement)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Call]:
    """One call of an engine, and its name."""
    kind = draw(st.sampled_from(["outgoing", "outgoing", "incoming", "incoming", "refused", "replace"]))
    if kind == "outgoing":
        frames, now = draw(frame_batches), draw(moments)
        return kind, lambda engine: as_lists(engine.outgoing(frames, now))
    if kind == "incoming":
        datagrams = draw(datagram_batches)
        return kind, lambda engine: engine.incoming(datagrams)
    if kind == "refused":
        packets, mtu, now = (
            draw(streams()),
            draw(st.sampled_from([0, 100, 128, 600, 1467, 1468, 9000])),
            draw(moments),
        )
        first = bytes(packets[0])
        size = len(first) if len(packets) > 1 else 0
        train = b"".join(bytes(packet) for packet in packets[:40] if len(bytes(packet)) == len(first))
        return kind, lambda engine: as_lists(engine.refused(SENDERS[1], 8285, size, train, mtu, now))
    return draw(replacements)


def as_lists(answer: tuple[Sequence[tuple[bytes, int, int, bytes]], list[bytes]]) -> object:
    return [tuple(send) for send in answer[0]], answer[1]


def check_both(options: tuple[bool, bool, bool, bool], script: Iterable[tuple[str, Call]]) -> None:
    python, c = (engine_class(name)(*options) for name in IMPLEMENTATIONS)
    for step, (kind, call) in enumerate(script):
        assert call(python) == call(c), f"step {step}, {kind}"
        assert python.counters() == c.counters(), f"step {step}, {kind}"


scripts = st.tuples(replacements, st.lists(calls(), max_size=5)).map(lambda parts: [parts[0], *parts[1]])


@settings(max_examples=150)
@given(switches, scripts)
def test_both_datapaths_give_the_same(
    options: tuple[bool, bool, bool, bool], script: list[tuple[str, Call]]
) -> None:
    check_both(options, script)


@pytest.mark.long
@settings(max_examples=10_000)
@given(switches, scripts)
def test_both_datapaths_give_the_same_always(
    options: tuple[bool, bool, bool, bool], script: list[tuple[str, Call]]
) -> None:
    check_both(options, script)


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.builds(bytes.__add__, tables.map(Table.packed), st.binary(max_size=3)))
def test_both_datapaths_refuse_the_same_tables(packed: bytes) -> None:
    verdicts = []
    for name in IMPLEMENTATIONS:
        try:
            engine_class(name)(True, True, True, True).replace(packed)
        except ValueError:
            verdicts.append("refused")
        else:
            verdicts.append("taken")
    assert len(set(verdicts)) == 1


@pytest.mark.parametrize(("sending", "receiving"), list(product(IMPLEMENTATIONS, repeat=2)))
@settings(max_examples=40)
@given(st.lists(streams() | superpackets().map(lambda one: [one[0]]), max_size=4), switches, switches)
def test_what_one_node_sends_the_other_gives_out(
    sending: str,
    receiving: str,
    flows: list[list[Packet]],
    near: tuple[bool, bool, bool, bool],
    far: tuple[bool, bool, bool, bool],
) -> None:
    """Whatever the two are made of and may offload: the kernel behind the one gets, cut again, every packet that
    leaves the other, in order, but for those that would not be let in alone either."""
    sender, receiver, alone = engine_of(1, sending, near), engine_of(2, receiving, far), engine_of(2, "python")
    prefix = bytes(10) * near[0]
    sends, _ = sender.outgoing([prefix + bytes(packet) for flow in flows for packet in flow], 0.0)
    arriving = [(SENDERS[0], size, payload) for peer, _, size, payload in sends if peer == SENDERS[1]]
    expected = [
        without_id(packet)
        for sender_address, size, payload in arriving
        for packet in take_apart(size, payload)
        if alone.incoming([(sender_address, 0, packet)])
    ]
    got = cut("python", receiver.incoming(arriving), tun_offload=far[0])
    assert [without_id(packet) for packet in got] == expected
    assert receiver.counters()["rx_packets"] == len(expected)
