"""Forged packets as bytes, and the counter that must count each.

An encapsulated packet is accepted if its outer source is a peer's, its inner source is in that peer's subnet, and
its inner destination is in the subnet of the node that receives it.  Each forgery here violates one of the three.

The headers are those of RFC 791, RFC 768 and RFC 7348 section 5.  UDP checksums are left out (0), which IPv4
allows.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network

from overlayd.core.firewall.nftables import BAD_SOURCE, NOT_OURS, UNKNOWN_SENDER
from overlayd.core.network.backend import HostRequirements
from overlayd.core.network.backend_choice import check_backend
from overlayd.core.network.config import parse_config
from overlayd.lab.blueprint import network_config
from overlayd.lab.model import UNDERLAY, LabNode, LabSpec
from overlayd.lab.suite.icmp import checksum
from overlayd.lab.suite.topology import ProbePair, Topology
from overlayd.plugins import load_backends

IP_HEADER, UDP_HEADER = 20, 8
_VXLAN_HEADER, _ETHERNET_HEADER = 8, 14
_VNI_IS_VALID = 0x08
_ETHERTYPE_IPV4 = 0x0800
_TTL = 64

_ABROAD = IPv4Network("192.0.2.0/24")
"""RFC 5737: addresses for documentation, which are in no network."""


@dataclass(frozen=True, slots=True)
class ForgedPacket:
    """A forgery: `outer` is its underlay source, `source` and `destination` are the inner addresses.

    `counter` is the one by which the receiving node must count it.
    """

    outer: IPv4Address
    source: IPv4Address
    destination: IPv4Address
    counter: str


Forge = Callable[[Topology, ProbePair], ForgedPacket]
"""What the source of a pair sends to the node of its target."""


def unused_address(node: LabNode) -> IPv4Address:
    """Return an underlay address that no node has: another one for each node to forge with."""
    return UNDERLAY[254 * 256 + node.number]


def from_unknown_sender(topology: Topology, pair: ProbePair) -> ForgedPacket:
    """Forge a packet whose outer source is not a peer's."""
    return ForgedPacket(unused_address(pair.source.node), pair.source.address, pair.target.address, UNKNOWN_SENDER)


def from_third_node(topology: Topology, pair: ProbePair) -> ForgedPacket:
    """Forge a packet of a peer with an inner source of a third node, or of no node where there is no third."""
    both = (pair.source.node, pair.target.node)
    third = next((subnet for node, subnet in topology.subnets.items() if node not in both), _ABROAD)
    return ForgedPacket(pair.source.node.underlay, third[1], pair.target.address, BAD_SOURCE)


def outside_the_subnet(topology: Topology, pair: ProbePair) -> ForgedPacket:
    """Forge a packet of a peer for an inner destination outside of the target's subnet: the node's underlay."""
    return ForgedPacket(pair.source.node.underlay, pair.source.address, pair.target.node.underlay, NOT_OURS)


def genuine(pair: ProbePair) -> tuple[IPv4Address, IPv4Address]:
    """Return inner source and destination of a packet that must pass."""
    return pair.source.address, pair.target.address


@cache
def encapsulation(spec: LabSpec) -> HostRequirements:
    """Return how the backend encapsulates packets: its UDP port, and the VNI of VXLAN.

    The port is None where it does not encapsulate them, or in a way that is not known here.
    """
    needs = check_backend(parse_config(network_config(spec)), load_backends()).requirements()
    return needs if needs.vni is not None or spec.backend == "udp" else HostRequirements()


def position(needs: HostRequirements) -> int:
    """Return where the inner IP header begins, in bytes from the outer UDP header."""
    return UDP_HEADER + (_VXLAN_HEADER + _ETHERNET_HEADER if needs.vni is not None else 0)


def datagram(source: IPv4Address, target: IPv4Address, port: int, load: bytes) -> bytes:
    """Make an IPv4 packet with a UDP datagram from `port` to `port`."""
    udp = struct.pack("!HHHH", port, port, UDP_HEADER + len(load), 0) + load
    return ip_header(source, target, len(udp)) + udp


def ip_header(source: IPv4Address, target: IPv4Address, size: int) -> bytes:
    """Make the IPv4 header of `size` bytes of UDP."""

    def pack(check: int) -> bytes:
        return struct.pack(
            "!BBHHHBBH4s4s",
            *(0x45, 0, IP_HEADER + size, 0, 0, _TTL, socket.IPPROTO_UDP, check),
            *(source.packed, target.packed),
        )

    return pack(checksum(pack(0)))


def encapsulate(
    forgery: ForgedPacket, target: LabNode, needs: HostRequirements, mac: bytes, inner: bytes
) -> bytes:
    """Encapsulate an inner packet for the target; `mac` is that of the target's VTEP, if it has one."""
    assert needs.port is not None
    if needs.vni is not None:
        frame = mac + forgery.outer.packed.rjust(6, b"\x02") + struct.pack("!H", _ETHERTYPE_IPV4)
        inner = struct.pack("!II", _VNI_IS_VALID << 24, needs.vni << 8) + frame + inner
    return datagram(forgery.outer, target.underlay, needs.port, inner)
