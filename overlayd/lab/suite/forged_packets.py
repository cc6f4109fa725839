"""Packets that pretend, as bytes, and what they must be counted as.

An overlay's packet is believed for three reasons: its outer source is a peer's, its inner source is that peer's
to send from, its inner destination belongs to the node that gets it.  Each forgery here tells the truth in two
of these and lies in the third.

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
"""RFC 5737: addresses for examples, so of no network that anybody has."""


@dataclass(frozen=True, slots=True)
class ForgedPacket:
    """`outer` is the underlay address that it claims to come from, `source` and `destination` are inside;
    `counter` is what the node that gets it must count it as."""

    outer: IPv4Address
    source: IPv4Address
    destination: IPv4Address
    counter: str


Forge = Callable[[Topology, ProbePair], ForgedPacket]
"""What the source of a pair sends to the node of its target."""


def stranger(node: LabNode) -> IPv4Address:
    """An underlay address that nobody has, one for each node to lie with."""
    return UNDERLAY[254 * 256 + node.number]


def from_a_stranger(topology: Topology, pair: ProbePair) -> ForgedPacket:
    """Who sends it is no peer."""
    return ForgedPacket(stranger(pair.source.node), pair.source.address, pair.target.address, UNKNOWN_SENDER)


def from_a_third(topology: Topology, pair: ProbePair) -> ForgedPacket:
    """A peer sends what only a third node may send, or nobody at all where there is no third."""
    both = (pair.source.node, pair.target.node)
    third = next((subnet for node, subnet in topology.subnets.items() if node not in both), _ABROAD)
    return ForgedPacket(pair.source.node.underlay, third[1], pair.target.address, BAD_SOURCE)


def past_the_subnet(topology: Topology, pair: ProbePair) -> ForgedPacket:
    """A peer wants its packet delivered outside of the target's subnet: to the node itself, past its underlay."""
    return ForgedPacket(pair.source.node.underlay, pair.source.address, pair.target.node.underlay, NOT_OURS)


def oracle(pair: ProbePair) -> tuple[IPv4Address, IPv4Address]:
    """Inner source and destination of a packet that may pass."""
    return pair.source.address, pair.target.address


@cache
def encapsulation(spec: LabSpec) -> HostRequirements:
    """How the backend wraps packets: its UDP port, None where it does not wrap them, or in a way that is not known
    here; the VNI of VXLAN."""
    needs = check_backend(parse_config(network_config(spec)), load_backends()).requirements()
    return needs if needs.vni is not None or spec.backend == "udp" else HostRequirements()


def position(needs: HostRequirements) -> int:
    """Where the inner IP header begins, in bytes from the outer UDP header."""
    return UDP_HEADER + (_VXLAN_HEADER + _ETHERNET_HEADER if needs.vni is not None else 0)


def datagram(source: IPv4Address, target: IPv4Address, port: int, load: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram from `port` to `port`."""
    udp = struct.pack("!HHHH", port, port, UDP_HEADER + len(load), 0) + load
    return ip_header(source, target, len(udp)) + udp


def ip_header(source: IPv4Address, target: IPv4Address, size: int) -> bytes:
    """Before `size` bytes of UDP."""

    def pack(check: int) -> bytes:
        return struct.pack(
            "!BBHHHBBH4s4s",
            *(0x45, 0, IP_HEADER + size, 0, 0, _TTL, socket.IPPROTO_UDP, check),
            *(source.packed, target.packed),
        )

    return pack(checksum(pack(0)))


def wrapped(forgery: ForgedPacket, target: LabNode, needs: HostRequirements, mac: bytes, inner: bytes) -> bytes:
    """The whole packet for the target, around an inner one; `mac` is that of the target's VTEP, if it has one."""
    assert needs.port is not None
    if needs.vni is not None:
        frame = mac + forgery.outer.packed.rjust(6, b"\x02") + struct.pack("!H", _ETHERTYPE_IPV4)
        inner = struct.pack("!II", _VNI_IS_VALID << 24, needs.vni << 8) + frame + inner
    return datagram(forgery.outer, target.underlay, needs.port, inner)
