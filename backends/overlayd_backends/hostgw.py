"""The host-gw backend: no encapsulation, a route per peer through the peer itself.

It needs every peer on the same link, since the next hop of a route must be a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from overlayd.core.kernel.items import Forwarding, Item, Route
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac
from overlayd.core.network.backend import HostRequirements, PeerRefusedError
from overlayd.core.network.view import Device, NetworkView, Underlay
from overlayd_backends.peers import check_type, locate, prefix_in


@dataclass(frozen=True, slots=True)
class HostGwBackend:
    """host-gw has no options."""

    kind: ClassVar[str] = "host-gw"
    families: ClassVar[frozenset[Family]] = frozenset({Family.IPV4})
    options: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> HostGwBackend:
        return cls()

    def requirements(self) -> HostRequirements:
        return HostRequirements()

    def device(self, family: Family, underlay: Underlay) -> Device:
        return Device(underlay.link, underlay.mtu)

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        return Attributes(public_ips=(underlay.public_ip,), backend=self.kind)

    def base(self, view: NetworkView) -> Iterator[Item]:
        return (Forwarding(leg.family) for leg in view.legs)

    def peer(self, view: NetworkView, lease: Lease) -> Iterable[Item]:
        check_type(lease, self.kind)
        items = []
        for leg in view.legs:
            prefix, public = prefix_in(lease, leg), locate(lease, view)
            if not view.underlay.reaches_directly(public):
                link = view.underlay.link
                raise PeerRefusedError(
                    f"is at {public}, which is not on the link of {link}; host-gw needs all nodes on one link"
                )
            items.append(Route(prefix, public, leg.device))
        return items
