"""The udp backend's policy: one TUN device, one datapath on it, and for each peer an entry of its table.

The route leads the whole network into the device; which peer a packet is for is the datapath's to know.  So a
packet for a subnet that nobody holds ends there, with an answer to its sender, and never leaves by the underlay
unwrapped.  The record in the lease is flannel's: a public IP and no data, as every node has the same port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.items import Address, Forwarding, Item, Link, Route, TunKind
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac
from overlayd.core.network.backend import BackendOptionError, HostRequirements
from overlayd.core.network.view import Device, NetworkView, Underlay
from overlayd_backends.options import number, underlay_mtu
from overlayd_backends.peers import check_type, locate, prefix_in

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
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    options: ClassVar[frozenset[str]] = frozenset({"Port", "MTU"})

    port: int = 8285
    mtu: int | None = None

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> UdpBackend:
        mtu = number(options, "MTU", 0, 0, 65535)
        if 0 < mtu < MTU_MIN:
            raise BackendOptionError("MTU", f"{mtu} leaves no room for packets: it must be at least {MTU_MIN}")
        return cls(port=number(options, "Port", cls().port, 1, 65535), mtu=mtu or None)

    def requirements(self) -> HostRequirements:
        return HostRequirements(port=self.port, tun=True)

    def device(self, family: Family, underlay: Underlay) -> Device:
        return Device(DEVICE, underlay_mtu(self.mtu, underlay) - IP_HEADER[underlay.family] - UDP_HEADER)

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        return Attributes(public_ips=(underlay.public_ip,), backend=self.kind)

    def base(self, view: NetworkView) -> Iterator[Item]:
        # A peer's lease that overlaps ours is the older one, or it would not be served: until the claimer has
        # noticed as well that ours is lost, nothing of it is handed inwards.
        own = view.own
        lost = own is not None and any(peer.subnet.overlaps(own) for peer in view.peers)
        inwards = own.prefixes if own is not None and not lost else ()
        yield Link(DEVICE, TunKind(), None, view.mtu)
        yield Datapath(DEVICE, view.underlay.address, self.port, inwards)
        for leg in view.legs:
            yield Forwarding(leg.family)
            yield Route(leg.network, None, leg.device)
            if leg.own_prefix is not None:
                yield Address(leg.device, leg.own_prefix.network_address, leg.own_prefix.max_prefixlen)

    def peer(self, view: NetworkView, lease: Lease) -> Iterable[Item]:
        """List the items of a peer; a record that names no backend is one of flannel's udp nodes."""
        check_type(lease, self.kind, unnamed=True)
        return [Encap(leg.device, prefix_in(lease, leg), locate(lease, view), self.port) for leg in view.legs]
