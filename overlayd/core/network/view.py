"""The network as one node sees it: its underlay, its own lease, its peers, and one leg for each address family.

An address family is a value.  Backends, firewall, preflight and status go through `NetworkView.legs`; only
`make_legs` knows how config, underlay and subnet are divided by family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import Family, IPAddress, IPNetwork, Mac, Subnet
from overlayd.core.network.config import NetworkConfig


@dataclass(frozen=True, slots=True)
class Underlay:
    """This node's place in the network below: the interface, its own address on it, the prefixes that are
    on-link there, its MTU in bytes, and the address that peers are told to send to."""

    link: str
    address: IPAddress
    networks: tuple[IPNetwork, ...]
    mtu: int
    public_ip: IPAddress

    @property
    def family(self) -> Family:
        return Family.of(self.address)

    def reaches_directly(self, address: IPAddress) -> bool:
        """Tell whether the underlay reaches this address without a gateway."""
        return any(network.version == address.version and address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Device:
    """The interface that overlay traffic of one family leaves by, and the MTU that its pods may use, in bytes."""

    name: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Leg:
    """The network in one address family.

    `subnet_len` is the prefix length of a node's subnet, `own_prefix` this node's, None until one is leased.
    Outer packets leave from `underlay_address`.  Overlay packets leave by `device`; pods may use `mtu` bytes.
    """

    family: Family
    network: IPNetwork
    subnet_len: int
    underlay_address: IPAddress
    own_prefix: IPNetwork | None
    device: str
    mtu: int


def make_legs(
    config: NetworkConfig, underlay: Underlay, own: Subnet | None, device: Callable[[Family, Underlay], Device]
) -> tuple[Leg, ...]:
    """Divide the network by address family, IPv4 first; `device` is the backend's."""
    legs = []
    for span in config.ranges:
        leaves_by = device(span.family, underlay)
        legs.append(
            Leg(
                span.family,
                span.network,
                span.subnet_len,
                underlay.address,
                own.of(span.family) if own is not None else None,
                leaves_by.name,
                leaves_by.mtu,
            )
        )
    return tuple(legs)


@dataclass(frozen=True, slots=True)
class NetworkView:
    """All that a backend may know when it states what it desires.

    `lease` is None until a subnet is ours.  `peers` are the leases of the others, disjoint, this node's own
    not among them.  `in_sync` is False until a first whole snapshot was absorbed.
    """

    config: NetworkConfig
    underlay: Underlay
    mac: Mac
    lease: Lease | None
    peers: tuple[Lease, ...]
    in_sync: bool
    legs: tuple[Leg, ...]

    @property
    def own(self) -> Subnet | None:
        """This node's subnet, None until one is leased."""
        return self.lease.subnet if self.lease is not None else None

    @property
    def mtu(self) -> int:
        """What the pods may use, whatever family they speak; bytes."""
        return min(leg.mtu for leg in self.legs)


def peers_by_age(leases: Iterable[Lease]) -> list[Lease]:
    """Order leases oldest first: of two that want the same kernel key, the older one is served."""
    return sorted(leases, key=lambda lease: lease.order)
