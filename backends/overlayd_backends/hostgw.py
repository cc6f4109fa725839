"""The host-gw backend: no encapsulation, a route per peer through the peer itself.

It needs every peer on the same link, since the next hop of a route must be a neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from overlayd.core.kernel.items import Forwarding, KernelState, Route
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.network.addresses import Family, Mac, Subnet
from overlayd.core.network.backend import DesiredState, HostRequirements
from overlayd.core.network.view import NetworkView, Underlay
from overlayd_backends.peers import NotServedError, is_on_link, whereabouts


@dataclass(frozen=True, slots=True)
class HostGwBackend:
    """host-gw has no options."""

    kind: ClassVar[str] = "host-gw"

    @classmethod
    def known(cls) -> frozenset[str]:
        return frozenset()

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> HostGwBackend:
        return cls()

    def overhead(self, family: Family) -> int:
        return 0

    def needs(self) -> HostRequirements:
        return HostRequirements()

    def advertise(self, underlay: Underlay, mac: Mac) -> Attributes:
        return Attributes(public_ips=(underlay.public_ip,), backend=self.kind)

    def desired(self, view: NetworkView) -> DesiredState:
        served: dict[Subnet, KernelState] = {}
        refused: dict[Subnet, str] = {}
        for peer in view.peers:
            try:
                served[peer.subnet] = KernelState.of([self._route(peer, view.underlay)])
            except NotServedError as reason:
                refused[peer.subnet] = str(reason)
        base = KernelState.of([Forwarding(Family.IPV4)])
        return DesiredState(view.underlay.link, view.underlay.mtu, base, served, refused)

    def _route(self, peer: Lease, underlay: Underlay) -> Route:
        prefix, public = whereabouts(peer, self.kind, underlay)
        if not is_on_link(public, underlay):
            raise NotServedError(
                f"is at {public}, which is not on the link of {underlay.link}; host-gw needs all nodes on one link"
            )
        return Route(prefix, public, underlay.link)
