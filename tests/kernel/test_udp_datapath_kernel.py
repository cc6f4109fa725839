"""The kernel judges: a superpacket that it cuts itself comes out as the segments that the datapath makes of it,
and what the datapath has joined, it cuts back into the packets that there were.

It is handed a frame by a TUN device with all offloads, forwards it, and gives it out at a TUN device with none.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd.host.netlink.netns import in_netns
from overlayd_backends.udp.device import TunOffload, attach_tun
from support.datapaths import IMPLEMENTATIONS, cut, engine_of, without_id
from support.netns import ip, netns, run
from support.packets import NO_OFFLOAD, Packet, streams, superpackets

both = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
SENDER = bytes([10, 99, 0, 1])
PATIENCE_MS = 5000


@dataclass(frozen=True)
class Kernel:
    """Two TUN devices of a namespace that forwards from the one to the other."""

    inside: int
    outside: int

    def forward(self, frame: bytes, count: int) -> list[bytes]:
        """What it makes of a frame: as many packets as are expected, and any beyond."""
        os.write(self.inside, frame)
        packets: list[bytes] = []
        poll = select.poll()
        poll.register(self.outside, select.POLLIN)
        while poll.poll(PATIENCE_MS if len(packets) < count else 0):
            packets.append(os.read(self.outside, 65535))
        return packets


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with netns() as name, ExitStack() as stack:
        for key in ("ipv6.conf.default.disable_ipv6=1", "ipv4.ip_forward=1"):
            run(f"ip netns exec {name} sysctl -qw net.{key}")
        ends = []
        for link, level, network in (
            ("inside", TunOffload.USO, "10.244.1.0/24"),
            ("outside", TunOffload.NONE, "10.244.2.0/24"),
        ):
            ip(name, f"tuntap add {link} mode tun")
            ip(name, f"link set {link} up")
            ip(name, f"route add {network} dev {link}")
            fd, got = in_netns(name, lambda link=link, level=level: attach_tun(link, level))  # type: ignore[misc]
            assert got is level
            stack.callback(os.close, fd)
            ends.append(fd)
        yield Kernel(*ends)


def forwarded(packet: Packet) -> Packet:
    """The TTL is all that forwarding changes."""
    return replace(packet, ttl=packet.ttl - 1)


@both
@settings(max_examples=40)
@given(superpackets().filter(lambda one: len(one[0].payload) > one[1]))
def test_the_kernel_cuts_as_the_datapath_does(
    kernel: Kernel, implementation: str, given_: tuple[Packet, int]
) -> None:
    whole, size = given_
    whole = replace(whole, destination="10.244.2.7", options=b"")
    ours = cut(implementation, [forwarded(whole).offload(size)])
    assert kernel.forward(whole.offload(size), len(ours)) == ours


@both
@settings(max_examples=20)
@given(streams())
def test_the_kernel_finishes_a_checksum_as_the_datapath_does(
    kernel: Kernel, implementation: str, packets: list[Packet]
) -> None:
    whole = [replace(one, protocol=None, destination="10.244.2.7", header_off_by=0, fragment=0) for one in packets]
    for packet in (one for one in whole[:5] if one.source.startswith("10.244.1.")):
        ours = cut(implementation, [forwarded(packet).offload(checksum_only=True)])
        assert kernel.forward(packet.offload(checksum_only=True), 1) == ours


@both
@settings(max_examples=40)
@given(st.lists(streams(), min_size=1, max_size=3))
def test_the_kernel_cuts_what_was_joined_back_into_what_there_was(
    kernel: Kernel, implementation: str, flows: list[list[Packet]]
) -> None:
    packets = [packet for flow in flows for packet in flow]
    joined = engine_of(2, implementation).incoming([(SENDER, 0, bytes(packet)) for packet in packets])
    alone = engine_of(2, implementation)
    let_in = [forwarded(packet) for packet in packets if alone.incoming([(SENDER, 0, bytes(packet))])]
    got = list(all_forwarded(kernel, joined))
    assert [without_id(packet) for packet in got] == [without_id(bytes(packet)) for packet in let_in]


def all_forwarded(kernel: Kernel, frames: Iterable[bytes]) -> Iterator[bytes]:
    for frame in frames:
        is_joined = frame[: len(NO_OFFLOAD)] != NO_OFFLOAD
        size = int.from_bytes(frame[4:6], "little")
        payload = len(frame) - len(NO_OFFLOAD) - int.from_bytes(frame[2:4], "little")
        yield from kernel.forward(frame, -(-payload // size) if is_joined else 1)
