"""The vxlan backend: the kernel encapsulates, and every peer is three entries.

A peer's VTEP is its public IP, its tunnel address (the first address of its subnet) and its MAC.  For each
peer the device gets an FDB entry (MAC → public IP), a permanent neighbour (tunnel address → MAC) and an onlink
route (subnet → tunnel address), so nothing is ever flooded or learned.  RFC 7348; the record in the lease is
flannel's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from overlayd.core.kernel.items import (
    Address,
    FdbEntry,
    Forwarding,
    Item,
    Link,
    Neighbour,
    Route,
)
from overlayd.core.kernel.items import VxlanKind as VxlanDevice
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac
from overlayd.core.network.backend import BackendOptionError, HostRequirements, PeerRefusedError
from overlayd.core.network.view import Device, NetworkView, Underlay
from overlayd_backends.options import flag, number, underlay_mtu
from overlayd_backends.peers import check_type, locate, prefix_in

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
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    options: ClassVar[frozenset[str]] = frozenset({"VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting"})

    vni: int = 1
    port: int = 8472
    mtu: int | None = None
    gbp: bool = False
    learning: bool = False
    direct_routing: bool = False

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

    def requirements(self) -> HostRequirements:
        return HostRequirements(self.port, self.vni)

    def device(self, family: Family, underlay: Underlay) -> Device:
        overhead = ENCAP + IP_HEADER[underlay.family]
        return Device(f"ovl.{self.vni}", underlay_mtu(self.mtu, underlay) - overhead)

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        data = msgspec.json.encode(VtepData(VNI=self.vni, VtepMAC=str(mac))).decode()
        return Attributes(public_ips=(underlay.public_ip,), backend=self.kind, backend_data=data)

    def base(self, view: NetworkView) -> Iterator[Item]:
        for leg in view.legs:
            yield Forwarding(leg.family)
            kind = VxlanDevice(
                vni=self.vni,
                local=leg.underlay_address,
                underlay=view.underlay.link,
                port=self.port,
                learning=self.learning,
                gbp=self.gbp,
            )
            yield Link(leg.device, kind, view.mac, leg.mtu)
            if leg.own_prefix is not None:
                yield Address(leg.device, leg.own_prefix.network_address, leg.own_prefix.max_prefixlen)

    def peer(self, view: NetworkView, lease: Lease) -> Iterable[Item]:
        check_type(lease, self.kind)
        items: list[Item] = []
        for leg in view.legs:
            prefix, public = prefix_in(lease, leg), locate(lease, view)
            if self.direct_routing and view.underlay.reaches_directly(public):
                items.append(Route(prefix, public, view.underlay.link))
                continue
            mac, tunnel = self._vtep(lease), prefix.network_address
            if mac == view.mac:
                raise PeerRefusedError(f"has VTEP MAC {mac}, which is that of this node")
            items += (
                FdbEntry(leg.device, mac, public),
                Neighbour(leg.device, tunnel, mac),
                Route(prefix, tunnel, leg.device, onlink=True),
            )
        return items

    def _vtep(self, peer: Lease) -> Mac:
        try:
            data = msgspec.json.decode(peer.attributes.backend_data or "{}", type=VtepData)
            mac = Mac.parse(data.VtepMAC)
        except (msgspec.DecodeError, ValueError) as error:
            raise PeerRefusedError(f"has no usable VTEP in its BackendData: {error}") from error
        if not mac.is_unicast:
            raise PeerRefusedError(f"has VTEP MAC {mac}, which is not a unicast address")
        if data.VNI not in (None, self.vni):
            raise PeerRefusedError(f"speaks VNI {str(data.VNI)[:16]}, this node VNI {self.vni}")
        return mac
