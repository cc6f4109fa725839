"""What leaves the underlay interface, judged by scapy, which knows nothing of us.

Two nodes joined by a veth pair are programmed with plain operations; a packet goes from one overlay address to
the other, and the frame is caught on the way.  RFC 7348 says what it must look like.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
import trio
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from overlayd.host.netlink.driver import open_netlink_driver
from overlayd.host.netlink.netns import in_netns
from support.netns import two_nodes
from support.overlay import install, mac, node, subnet

ETH_P_ALL = 3
VXLAN_PORT = 8472
PAYLOAD = b"from one overlay address to the other"


@dataclass
class Nodes:
    """Two namespaces, 10.99.0.1 and 10.99.0.2, and what can be done in them."""

    names: tuple[str, str]
    sockets: ExitStack

    def udp(self, number: int, port: int) -> trio.socket.SocketType:
        """A socket on the overlay address of a node."""
        sock = self._open(number, socket.AF_INET, socket.SOCK_DGRAM, 0)
        sock.bind((str(subnet(number).network_address), port))
        return trio.socket.from_stdlib_socket(sock)

    def capture(self, number: int) -> trio.socket.SocketType:
        """Every frame that passes a node's underlay interface."""
        sock = self._open(number, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind(("eth0", ETH_P_ALL))
        return trio.socket.from_stdlib_socket(sock)

    def _open(self, number: int, family: int, kind: int, protocol: int) -> socket.socket:
        made = in_netns(self.names[number - 1], lambda: socket.socket(family, kind, protocol))
        return self.sockets.enter_context(made)


@contextmanager
def opened(names: tuple[str, str]) -> Iterator[Nodes]:
    with ExitStack() as sockets:
        yield Nodes(names, sockets)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with two_nodes() as names, opened(names) as both:
        yield both


async def caught(capture: trio.socket.SocketType) -> Ether:
    """The next VXLAN frame."""
    with trio.fail_after(10):
        while True:
            frame = Ether(await capture.recv(65536))
            if UDP in frame and frame[UDP].dport == VXLAN_PORT:
                return frame


async def test_the_frame_on_the_underlay_is_vxlan_as_programmed(nodes: Nodes) -> None:
    for number, other in ((1, 2), (2, 1)):
        async with open_netlink_driver(nodes.names[number - 1]) as driver:
            await install(driver, node(number, peers=(other,)))
    capture = nodes.capture(2)
    sender, receiver = nodes.udp(1, 5001), nodes.udp(2, 5002)
    await sender.sendto(PAYLOAD, (str(subnet(2).network_address), 5002))
    frame = await caught(capture)

    assert (frame[IP].src, frame[IP].dst) == ("10.99.0.1", "10.99.0.2")
    assert frame[UDP].dport == VXLAN_PORT
    assert 32768 <= frame[UDP].sport <= 60999  # entropy for the underlay's load balancing (RFC 7348, 5)
    vxlan = frame[VXLAN]
    assert int(vxlan.flags) == 0x08
    assert vxlan.vni == 1
    assert bytes(vxlan)[1:4] == bytes(3)
    assert bytes(vxlan)[7] == 0
    inner = vxlan[Ether]
    assert (inner.src, inner.dst) == (str(mac(1)), str(mac(2)))
    assert (inner[IP].src, inner[IP].dst) == ("10.244.1.0", "10.244.2.0")
    assert (inner[UDP].sport, inner[UDP].dport) == (5001, 5002)
    assert bytes(inner[UDP].payload) == PAYLOAD
    # the outer packet is the inner one and 50 bytes: what the MTU leaves room for
    assert frame[IP].len == inner[IP].len + 50

    with trio.fail_after(10):
        data, source = await receiver.recvfrom(2048)
    assert (data, source) == (PAYLOAD, ("10.244.1.0", 5001))


async def test_a_frame_that_scapy_builds_is_accepted(nodes: Nodes) -> None:
    """The other direction: what any VXLAN speaker would send us arrives."""
    async with open_netlink_driver(nodes.names[1]) as driver:
        await install(driver, node(2, peers=(1,)))
    receiver = nodes.udp(2, 5002)
    inner = (
        Ether(src=str(mac(1)), dst=str(mac(2)))
        / IP(src="10.244.1.0", dst="10.244.2.0", ttl=63)
        / UDP(sport=5001, dport=5002)
        / PAYLOAD
    )
    tunnel = nodes._open(1, socket.AF_INET, socket.SOCK_DGRAM, 0)
    tunnel.sendto(bytes(VXLAN(flags=0x08, vni=1) / inner), ("10.99.0.2", VXLAN_PORT))
    with trio.fail_after(10):
        data, source = await receiver.recvfrom(2048)
    assert (data, source) == (PAYLOAD, ("10.244.1.0", 5001))


@pytest.mark.parametrize("size", [1450 - 28, 1450 - 28 + 1])
async def test_the_mtu_of_the_device_is_what_fits_the_underlay(nodes: Nodes, size: int) -> None:
    """A packet of the device's MTU crosses in one piece, one byte more in two."""
    for number, other in ((1, 2), (2, 1)):
        async with open_netlink_driver(nodes.names[number - 1]) as driver:
            await install(driver, node(number, peers=(other,)))
    capture = nodes.capture(2)
    sender = nodes.udp(1, 5001)
    await sender.sendto(bytes(size), (str(subnet(2).network_address), 5002))
    frame = await caught(capture)
    inner = frame[VXLAN][IP]
    fits = size == 1450 - 28
    assert bool(inner.flags & 1) == (not fits)  # more fragments
    if fits:
        assert frame[IP].len == 1500
    assert IPv4Address(inner.dst) == subnet(2).network_address
