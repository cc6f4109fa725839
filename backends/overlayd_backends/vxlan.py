"""The vxlan backend: the kernel encapsulates, and every peer is three entries.

A peer's VTEP is its public IP, its tunnel address (the first address of its subnet) and its MAC.  For each
peer the device gets an FDB entry (MAC → public IP), a permanent neighbour (tunnel address → MAC) and an onlink
route (subnet → tunnel address), so nothing is ever flooded or learned.  RFC 7348; the record in the lease is
flannel's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network
from typing import ClassVar

import msgspec

from overlayd.core.kernel.items import (
    Address,
    FdbEntry,
    Forwarding,
    Item,
    KernelState,
    Link,
    Neighbour,
    Route,
)
from overlayd.core.kernel.items import VxlanKind as VxlanDevice
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, IPAddress, Mac, Subnet
from overlayd.core.network.backend import BackendOptionError, DesiredState, HostRequirements
from overlayd.core.network.view import NetworkView, Underlay
from overlayd_backends.options import flag, number
from overlayd_backends.peers import NotServedError, is_on_link, underlay_family, whereabouts

VNI_MAX = (1 << 24) - 1
"""RFC 7348 section 5: the VNI has 24 bits.  0 is refused, as the kernel's FDB reads it as "the device's own"."""
MTU_MIN = 68 + 50
"""RFC 791: every IPv4 link carries 68 bytes; below this nothing is left inside."""
ENCAP = 14 + 8 + 8
"""Inner Ethernet header, VXLAN header (RFC 7348 section 5), UDP header (RFC 768); bytes."""
IP_HEADER = {Family.IPV4: 20, Family.IPV6: 40}


class VtepData(msgspec.Struct, frozen=True, omit_defaults=True):
    """BackendData of a vxlan lease.  flannel up to 0.11 wrote no VNI."""

    VNI: int | None = None
    VtepMAC: str = ""


@dataclass(frozen=True, slots=True)
class VxlanBackend:
    """The vxlan options of the network config, defaults as flannel's.  `mtu` is the underlay's, in bytes."""

    kind: ClassVar[str] = "vxlan"

    vni: int = 1
    port: int = 8472
    mtu: int | None = None
    gbp: bool = False
    learning: bool = False
    direct_routing: bool = False

    @classmethod
    def known(cls) -> frozenset[str]:
        return frozenset({"VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting"})

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> VxlanBackend:
        default = cls()
        mtu = number(options, "MTU", 0, 0, 65535)
        if 0 < mtu < MTU_MIN:
            raise BackendOptionError("MTU", f"{mtu} leaves no room for packets: it must be at least {MTU_MIN}")
        return cls(
            vni=number(options, "VNI", default.vni, 1, VNI_MAX),
            port=number(options, "Port", default.port, 1, 65535),
            mtu=mtu or None,
            gbp=flag(options, "GBP"),
            learning=flag(options, "Learning"),
            direct_routing=flag(options, "DirectRouting"),
        )

    @property
    def device(self) -> str:
        return f"ovl.{self.vni}"

    def overhead(self, family: Family) -> int:
        return ENCAP + IP_HEADER[family]

    def needs(self) -> HostRequirements:
        return HostRequirements(self.port, self.vni)

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        data = msgspec.json.encode(VtepData(VNI=self.vni, VtepMAC=str(mac))).decode()
        return Attributes(public_ips=(underlay.public_ip,), backend=self.kind, backend_data=data)

    def desired(self, view: NetworkView) -> DesiredState:
        device = VxlanDevice(
            vni=self.vni,
            local=view.underlay.address,
            underlay=view.underlay.link,
            port=self.port,
            learning=self.learning,
            gbp=self.gbp,
        )
        mtu = (self.mtu or view.underlay.mtu) - self.overhead(underlay_family(view.underlay))
        base: list[Item] = [Forwarding(Family.IPV4), Link(self.device, device, view.mac, mtu)]
        if view.lease is not None and (own := view.lease.subnet.ipv4) is not None:
            base.append(Address(self.device, own.network_address, 32))

        served: dict[Subnet, KernelState] = {}
        refused: dict[Subnet, str] = {}
        macs: dict[Mac, str] = {view.mac: "this node"}
        for peer in sorted(view.peers, key=lambda lease: lease.create_revision):
            try:
                served[peer.subnet] = self._peer(peer, view.underlay, macs)
            except NotServedError as reason:
                refused[peer.subnet] = str(reason)
        return DesiredState(self.device, mtu, KernelState.of(base), served, refused)

    def _peer(self, peer: Lease, underlay: Underlay, macs: dict[Mac, str]) -> KernelState:
        prefix, public = whereabouts(peer, self.kind, underlay)
        if self.direct_routing and is_on_link(public, underlay):
            return KernelState.of([Route(prefix, public, underlay.link)])
        mac = self._vtep(peer)
        if mac in macs:
            raise NotServedError(f"has VTEP MAC {mac}, which is that of {macs[mac]}")
        macs[mac] = str(peer.subnet)
        return _entries(self.device, prefix, mac, public)

    def _vtep(self, peer: Lease) -> Mac:
        try:
            data = msgspec.json.decode(peer.attributes.backend_data or "{}", type=VtepData)
            mac = Mac.parse(data.VtepMAC)
        except (msgspec.DecodeError, ValueError) as error:
            raise NotServedError(f"has no usable VTEP in its BackendData: {error}") from error
        if not mac.is_unicast:
            raise NotServedError(f"has VTEP MAC {mac}, which is not a unicast address")
        if data.VNI not in (None, self.vni):
            raise NotServedError(f"speaks VNI {str(data.VNI)[:16]}, this node VNI {self.vni}")
        return mac


@lru_cache(maxsize=8192)  # of thousands of peers, nearly all are as they were when the wish was stated last
def _entries(device: str, prefix: IPv4Network, mac: Mac, public: IPAddress) -> KernelState:
    tunnel = prefix.network_address
    entries: list[Item] = [
        FdbEntry(device, mac, public),
        Neighbour(device, tunnel, mac),
        Route(prefix, tunnel, device, onlink=True),
    ]
    return KernelState.of(entries)
