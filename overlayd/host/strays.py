"""Who lives behind this host's interfaces, as far as the kernel knows."""

from __future__ import annotations

from overlayd.core.model import Family
from overlayd.core.strays import Inhabitant
from overlayd.core.underlay import is_our_device_name
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.entries import pack_neighbours_query, parse_neighbour
from overlayd.host.netlink.facts import read_addresses, read_links

_GONE = 0x20
"""NUD_FAILED (linux/neighbour.h): nobody answers there."""


async def read_inhabitants(netlink: Netlink) -> tuple[Inhabitant, ...]:
    """The addresses on all interfaces but ours, and their IPv4 neighbours.  Raises OSError."""
    links = {link.index: link.name for link in await read_links(netlink) if not link.loopback}
    names = {index: name for index, name in links.items() if not is_our_device_name(name)}
    found = [
        Inhabitant(address.link, address.address)
        for address in await read_addresses(netlink, links)
        if address.link in names.values()
    ]
    for message in await netlink.dump(wire.RTM_GETNEIGH, pack_neighbours_query(Family.IPV4, 0)):
        row = parse_neighbour(message.body)
        if row.ifindex in names and row.destination is not None and not row.state & _GONE:
            found.append(Inhabitant(names[row.ifindex], row.destination))
    return tuple(found)
