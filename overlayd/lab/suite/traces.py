"""The entries of a node that name another: routes, neighbours and FDB entries of its kernel, and those of its
userspace datapath, which only its daemon knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address

from overlayd.api.status_socket import StatusUnavailableError, query_status
from overlayd.core.network.addresses import Family
from overlayd.core.status.status import PeerState, PeerStatus
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import open_netlink
from overlayd.host.netlink.entries import (
    AF_BRIDGE,
    NeighbourRow,
    RouteRow,
    pack_neighbours_query,
    pack_routes_query,
    parse_neighbour,
    parse_route,
)
from overlayd.lab.model import LabNode

ANY_LINK = 0
"""The interface index that stands for all links."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The main routing table, the IPv4 neighbours and the forwarding databases of a network namespace, and the
    peers that its userspace datapath has entries for."""

    routes: tuple[RouteRow, ...]
    neighbours: tuple[NeighbourRow, ...]
    fdb: tuple[NeighbourRow, ...]
    datapath: tuple[PeerStatus, ...] = ()


async def read_tables(node: LabNode) -> Tables:
    """Read the tables of a node.  Raises OSError where its namespace can't be entered or its kernel read."""
    async with open_netlink(node.name) as netlink:
        routes = await netlink.dump(wire.RTM_GETROUTE, pack_routes_query(Family.IPV4))
        neighbours = await netlink.dump(wire.RTM_GETNEIGH, pack_neighbours_query(Family.IPV4, ANY_LINK))
        fdb = await netlink.dump(wire.RTM_GETNEIGH, pack_neighbours_query(AF_BRIDGE, ANY_LINK))
    return Tables(
        tuple(parse_route(message.body) for message in routes),
        tuple(parse_neighbour(message.body) for message in neighbours),
        tuple(parse_neighbour(message.body) for message in fdb),
        await _read_datapath(node),
    )


async def _read_datapath(node: LabNode) -> tuple[PeerStatus, ...]:
    """Read the peers of a node's datapath; none without a daemon, as there is no datapath then."""
    try:
        status = (await query_status(node.run_dir)).status
    except StatusUnavailableError:
        return ()
    return tuple(peer for peer in status.peers if status.datapath is not None and peer.state is PeerState.IN_SYNC)


def traces(tables: Tables, subnet: IPv4Network, underlay: IPv4Address) -> frozenset[str]:
    """List the entries that name a peer with this subnet or underlay address, worded as by `ip` and `bridge`."""
    fdb = (f"FDB entry {row.mac} dst {row.destination}" for row in tables.fdb if row.destination == underlay)
    encaps = (f"encap {peer.subnet} to {peer.public_ip}" for peer in tables.datapath if peer.subnet == str(subnet))
    return frozenset([*_routes(tables.routes, subnet), *_neighbours(tables.neighbours, subnet), *fdb, *encaps])


def _routes(rows: Iterable[RouteRow], subnet: IPv4Network) -> Iterable[str]:
    for row in rows:
        destination = ip_address(row.destination)
        if row.prefixlen >= subnet.prefixlen and destination in subnet:
            via = f" via {ip_address(row.gateway)}" if row.gateway is not None else ""
            yield f"route {destination}/{row.prefixlen}{via}"


def _neighbours(rows: Iterable[NeighbourRow], subnet: IPv4Network) -> Iterable[str]:
    for row in rows:
        if row.is_static and row.destination is not None and row.destination in subnet:
            yield f"neighbour {row.destination} lladdr {row.mac}"
