"""The udp backend's policy: one TUN device, one datapath on it, and for each peer an entry of its table.

The route leads the whole network into the device; which peer a packet is for is the datapath's to know.  So a
packet for a subnet that nobody holds ends there, with an answer to its sender, and never leaves by the underlay
unwrapped.  The record in the lease is flannel's: a public IP and no data, as every node has the same port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from overlayd.core.kernel.items import (
    Address,
    Datapath,
    Encap,
    Forwarding,
    Item,
    KernelState,
    Link,
    Route,
    TunKind,
)
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac, Subnet
from overlayd.core.network.backend import BackendOptionError, DesiredState, HostRequirements
from overlayd.core.network.view import NetworkView, Underlay
from overlayd_backends.options import number
from overlayd_backends.peers import NotServedError, underlay_family, whereabouts

DEVICE = "ovl.udp"
UDP_HEADER = 8
"""Bytes (RFC 768)."""
IP_HEADER = {Family.IPV4: 20, Family.IPV6: 40}
"""Bytes, without options (RFC 791, RFC 8200)."""
MTU_MIN = 68 + 28
"""RFC 791: every IPv4 link carries 68 bytes; below this nothing is left inside."""


@dataclass(frozen=True, slots=True)
class UdpBackend:
    """The udp options of the network config, the port as flannel's.  `mtu` is the underlay's, in bytes."""

    kind: ClassVar[str] = "udp"

    port: int = 8285
    mtu: int | None = None

    @classmethod
    def known(cls) -> frozenset[str]:
        return frozenset({"Port", "MTU"})

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> UdpBackend:
        mtu = number(options, "MTU", 0, 0, 65535)
        if 0 < mtu < MTU_MIN:
            raise BackendOptionError("MTU", f"{mtu} leaves no room for packets: it must be at least {MTU_MIN}")
        return cls(port=number(options, "Port", cls().port, 1, 65535), mtu=mtu or None)

    def overhead(self, family: Family) -> int:
        return IP_HEADER[family] + UDP_HEADER

    def needs(self) -> HostRequirements:
        return HostRequirements(port=self.port, tun=True)

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        return Attributes(public_ips=(underlay.public_ip,), backend=self.kind)

    def desired(self, view: NetworkView) -> DesiredState:
        mtu = (self.mtu or view.underlay.mtu) - self.overhead(underlay_family(view.underlay))
        own = view.lease.subnet.ipv4 if view.lease is not None else None
        # A peer's lease that overlaps ours is the older one, or it would not be served: until the keeper has
        # noticed as well that ours is lost, nothing of it is handed inwards.
        lost = view.lease is not None and any(peer.subnet.overlaps(view.lease.subnet) for peer in view.peers)
        base: list[Item] = [
            Forwarding(Family.IPV4),
            Link(DEVICE, TunKind(), None, mtu),
            Datapath(DEVICE, view.underlay.address, self.port, (own,) if own is not None and not lost else ()),
            Route(view.config.ranges[0].network, None, DEVICE),
        ]
        if own is not None:
            base.append(Address(DEVICE, own.network_address, 32))
        served: dict[Subnet, KernelState] = {}
        refused: dict[Subnet, str] = {}
        for peer in view.peers:
            try:
                served[peer.subnet] = KernelState.of([self._encap(peer, view.underlay)])
            except NotServedError as reason:
                refused[peer.subnet] = str(reason)
        return DesiredState(DEVICE, mtu, KernelState.of(base), served, refused)

    def _encap(self, peer: Lease, underlay: Underlay) -> Encap:
        """A record that names no backend is one of flannel's udp nodes."""
        prefix, public = whereabouts(peer, self.kind, underlay, unnamed=True)
        return Encap(DEVICE, prefix, public, self.port)
