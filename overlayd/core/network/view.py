"""The network as one node sees it: its underlay, its own lease, and its peers."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import IPAddress, IPNetwork, Mac
from overlayd.core.network.config import NetworkConfig


@dataclass(frozen=True, slots=True)
class Underlay:
    """How this node stands in the network below: the interface, its own address on it, the prefixes that are
    on-link there, its MTU in bytes, and the address that peers are told to send to."""

    link: str
    address: IPAddress
    networks: tuple[IPNetwork, ...]
    mtu: int
    public_ip: IPAddress


@dataclass(frozen=True, slots=True)
class NetworkView:
    """All that a backend may know when it states its wish.

    `lease` is None until a subnet is ours.  `peers` are the leases of the others, disjoint, this node's own
    not among them.  `in_sync` is False until a first whole snapshot was absorbed.
    """

    config: NetworkConfig
    underlay: Underlay
    mac: Mac
    lease: Lease | None
    peers: tuple[Lease, ...]
    in_sync: bool
