"""What every backend asks of a peer's lease before it serves the peer."""

from __future__ import annotations

from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import IPAddress, IPNetwork, is_host_address
from overlayd.core.network.backend import PeerRefusedError, refusal_of_type
from overlayd.core.network.view import Leg, NetworkView


def check_type(peer: Lease, kind: str, *, unnamed: bool = False) -> None:
    """Refuse a peer of another backend.  `unnamed`: a record that names no backend counts as one of this kind."""
    named = bool(peer.attributes.backend) or not unnamed
    if named and (reason := refusal_of_type(peer, kind)) is not None:
        raise PeerRefusedError(reason)


def locate(peer: Lease, view: NetworkView) -> IPAddress:
    """Find the peer's outer address, of the underlay's family; raises PeerRefusedError."""
    underlay = view.underlay
    public = peer.attributes.public_ip(underlay.family)
    if public is None:
        raise PeerRefusedError(f"has no {underlay.family.name} public IP")
    if public in (underlay.address, underlay.public_ip):
        raise PeerRefusedError(f"has public IP {public}, which is this node's own")
    if not is_host_address(public):
        raise PeerRefusedError(f"has public IP {public}, which is no host's address")
    return public


def prefix_in(peer: Lease, leg: Leg) -> IPNetwork:
    """Find the peer's inner prefix in this leg; raises PeerRefusedError."""
    prefix = peer.subnet.of(leg.family)
    if prefix is None:
        raise PeerRefusedError(f"has no IPv{leg.family.version} subnet")
    return prefix
