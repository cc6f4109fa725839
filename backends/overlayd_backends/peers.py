"""What every backend asks of a peer's lease before it serves the peer."""

from __future__ import annotations

from ipaddress import IPv4Network

from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import Family, IPAddress
from overlayd.core.network.backend import refusal_of_type
from overlayd.core.network.view import Underlay


class NotServedError(Exception):
    """Why a peer gets no entries, as the end of a sentence about it."""


def underlay_family(underlay: Underlay) -> Family:
    return Family.IPV4 if underlay.address.version == 4 else Family.IPV6


def whereabouts(
    peer: Lease, kind: str, underlay: Underlay, *, unnamed: bool = False
) -> tuple[IPv4Network, IPAddress]:
    """A peer's inner IPv4 prefix and its outer address in the underlay's family; raises NotServedError.

    `unnamed`: a record that names no backend counts as one of this kind.
    """
    named = bool(peer.attributes.backend) or not unnamed
    if named and (reason := refusal_of_type(peer, kind)) is not None:
        raise NotServedError(reason)
    family = underlay_family(underlay)
    prefix, public = peer.subnet.ipv4, peer.attributes.public_ip(family)
    if prefix is None:
        raise NotServedError("has no IPv4 subnet")
    if public is None:
        raise NotServedError(f"has no {family.name} public IP")
    if public in (underlay.address, underlay.public_ip):
        raise NotServedError(f"has public IP {public}, which is this node's own")
    if not _is_host(public):
        raise NotServedError(f"has public IP {public}, which is no host's address")
    return prefix, public


def is_on_link(address: IPAddress, underlay: Underlay) -> bool:
    """Whether the underlay reaches this address without a gateway."""
    return any(network.version == address.version and address in network for network in underlay.networks)


def _is_host(address: IPAddress) -> bool:
    return not (address.is_unspecified or address.is_multicast or address.is_loopback or address.is_reserved)
