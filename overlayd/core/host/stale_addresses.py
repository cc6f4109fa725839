"""Who on this host still lives at an address that is no longer this node's to give.

After a subnet was lost, or the network changed, pods that were there before keep their addresses until they are
restarted.  Packets to
them go to whoever holds that subnet now.  This names them; nothing is done to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overlayd.core.leases.lease import Lease
from overlayd.core.network.addresses import IPAddress, IPNetwork, Subnet
from overlayd.core.status.problem import Problem

NAMED = 5
"""Addresses that are told one by one; the rest are counted."""


@dataclass(frozen=True, slots=True)
class UsedAddress:
    """An address in use behind an interface of this host that is not overlayd's: its own, or a neighbour's."""

    link: str
    address: IPAddress


def find_stale_addresses(
    used_addresses: Iterable[UsedAddress], networks: Iterable[IPNetwork], own: Subnet, leases: Iterable[Lease]
) -> tuple[Problem, ...]:
    """Find a problem for each interface behind which there are addresses of the network, but not of our subnet."""
    networks, leases = tuple(networks), tuple(leases)
    stale_addresses: dict[str, list[IPAddress]] = {}
    for used in used_addresses:
        address = used.address
        if any(_is_in(address, network) for network in networks) and not _is_of(address, own):
            stale_addresses.setdefault(used.link, []).append(address)
    return tuple(_problem(link, stale_addresses[link], own, leases) for link in sorted(stale_addresses))


def _problem(link: str, addresses: list[IPAddress], own: Subnet, leases: tuple[Lease, ...]) -> Problem:
    addresses = sorted(set(addresses), key=int)
    listed = ", ".join(map(str, addresses[:NAMED]))
    more = f" and {len(addresses) - NAMED} more" if len(addresses) > NAMED else ""
    owners = sorted(
        {
            lease.attributes.node_name or lease.attributes.identity
            for lease in leases
            if any(_is_of(address, lease.subnet) for address in addresses)
        }
    )
    whose = f"belong to {', '.join(owners)} now" if owners else "belong to no one now"
    return Problem(
        "old-addresses",
        f"behind {link} there are still {listed}{more}, which {whose}; this node's subnet is {own}",
        f"Restart these pods; a bridge takes its new address with the first of them (ip address show {link})",
    )


def _is_in(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network


def _is_of(address: IPAddress, subnet: Subnet) -> bool:
    return any(_is_in(address, prefix) for prefix in subnet.prefixes)
