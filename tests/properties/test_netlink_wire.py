"""Frames and attributes: what is packed is read back, and no bytes whatever break the reader."""

from __future__ import annotations

import contextlib
import errno
import struct

from hypothesis import given
from hypothesis import strategies as st

from overlayd.host.netlink import wire

payloads = st.binary(max_size=40)


@given(st.dictionaries(st.integers(0, 0x3FFF), payloads, max_size=8), st.binary(max_size=12))
def test_attributes_come_back(attrs: dict[int, bytes], head: bytes) -> None:
    body = head + b"".join(wire.attribute(kind, payload) for kind, payload in attrs.items())
    found = wire.attributes(memoryview(body), len(head))
    assert {kind: bytes(payload) for kind, payload in found.items()} == attrs


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), payloads), max_size=6))
def test_messages_come_back(sent: list[tuple[int, int, bytes]]) -> None:
    datagram = b""
    for kind, sequence, body in sent:
        datagram += wire.Request(kind, 0, body).frame(sequence) + bytes(-len(body) % 4)
    found = [(message.kind, message.sequence, bytes(message.body)) for message in wire.messages(datagram)]
    assert found == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        for message in wire.messages(data):
            wire.attributes(message.body, 0)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.booleans(),
    payloads,
)
def test_a_refusal_brings_the_kernels_words(words: str, capped: bool, asked: bytes) -> None:
    """The request is echoed behind the error: all of it, or, capped, only its header."""
    echo = wire.Request(wire.RTM_NEWROUTE, 0, asked).frame(7) + bytes(-len(asked) % 4)
    body = struct.pack("=i", -errno.EINVAL) + (echo[:16] if capped else echo)
    body += wire.attribute(1, words.encode() + b"\0")
    message = wire.Message(wire.NLMSG_ERROR, 0x200 | (0x100 if capped else 0), 7, memoryview(body))
    assert wire.refusal(message) == wire.Refusal(errno.EINVAL, words)


def test_success_is_no_refusal() -> None:
    body = struct.pack("=i", 0) + wire.Request(wire.RTM_NEWROUTE, 0, b"").frame(7)
    assert wire.refusal(wire.Message(wire.NLMSG_ERROR, 0x100, 7, memoryview(body))) is None
    assert wire.refusal(wire.Message(wire.NLMSG_DONE, 0, 7, memoryview(struct.pack("=i", 0)))) is None
    assert wire.refusal(wire.Message(wire.NLMSG_DONE, 0, 7, memoryview(b""))) is None


def test_a_refusal_reads_as_a_sentence() -> None:
    assert str(wire.Refusal(errno.ENETDOWN, "Device for nexthop is not up")) == (
        "Device for nexthop is not up (Network is down)"
    )
    assert str(wire.Refusal(errno.EPERM)) == "Operation not permitted"
