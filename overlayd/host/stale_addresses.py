"""Who lives behind this host's interfaces, as far as the kernel knows."""

from __future__ import annotations

from collections.abc import Iterable

from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.host.underlay import HostAddress, HostLink
from overlayd.core.network.addresses import Family
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.entries import pack_neighbours_query, parse_neighbour

_ABSENT = 0x01 | 0x20
"""NUD_INCOMPLETE and NUD_FAILED (linux/neighbour.h): somebody asked for the address, and nobody has answered."""


async def read_used_addresses(
    netlink: Netlink, links: Iterable[HostLink], addresses: Iterable[HostAddress]
) -> tuple[UsedAddress, ...]:
    """List the addresses on all interfaces but ours, and their IPv4 neighbours.  Raises OSError."""
    names = {link.index: link.name for link in links if not link.loopback and not link.ours}
    others = set(names.values())
    found = [UsedAddress(address.link, address.address) for address in addresses if address.link in others]
    for message in await netlink.dump(wire.RTM_GETNEIGH, pack_neighbours_query(Family.IPV4, 0)):
        row = parse_neighbour(message.body)
        if row.ifindex in names and row.destination is not None and not row.state & _ABSENT:
            found.append(UsedAddress(names[row.ifindex], row.destination))
    return tuple(found)
