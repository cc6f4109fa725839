"""The three messages that each peer costs: FDB entry, neighbour, route; packed and read by hand.

pyroute2 needs a quarter of a millisecond for each, which is most of the time that a thousand peers would take.
Their layout is fixed: struct ndmsg (linux/neighbour.h) or struct rtmsg (linux/rtnetlink.h), then attributes.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import NamedTuple

from overlayd.core.kernel.items import ROUTE_PROTOCOL, FdbEntry, Neighbour, Route
from overlayd.core.network.addresses import Family, IPAddress, Mac
from overlayd.host.netlink.wire import attribute, attributes

AF_BRIDGE = 7
"""linux/socket.h; Python's socket module does not have it."""

NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
NTF_SELF = 0x02

NDA_DST = 1
NDA_LLADDR = 2
NDA_PORT = 6
NDA_VNI = 7
NDA_IFINDEX = 8
NDA_NH_ID = 13

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_MULTIPATH = 9
RTA_TABLE = 15

RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_NOWHERE = 255
RTN_UNICAST = 1
RTNH_F_ONLINK = 4

_NDMSG = struct.Struct("=BBHiHBB")
_RTMSG = struct.Struct("=BBBBBBBBI")
_INDEX = struct.Struct("=i")
_U32 = struct.Struct("=I")

_FDB = {size: struct.Struct(f"=BBHiHBB HH{size}s HH6s2x") for size in (4, 16)}
_NEIGHBOUR = _FDB
_ROUTE = {size: struct.Struct(f"=BBBBBBBBI HH{size}s HH{size}s HHi") for size in (4, 16)}
_LINK_ROUTE = {size: struct.Struct(f"=BBBBBBBBI HH{size}s HHi") for size in (4, 16)}
"""Header and attributes in one, by the size of an address in bytes."""


def family_of(address: IPAddress) -> Family:
    return Family.IPV4 if address.version == 4 else Family.IPV6


def pack_fdb_entry(entry: FdbEntry, index: int) -> bytes:
    destination = entry.destination.packed
    size = len(destination)
    return _FDB[size].pack(
        AF_BRIDGE, 0, 0, index, NUD_PERMANENT | NUD_NOARP, NTF_SELF, 0,
        4 + size, NDA_DST, destination,
        4 + 6, NDA_LLADDR, entry.mac.packed,
    )  # fmt: skip


def pack_fdb_key(mac: Mac, index: int) -> bytes:
    """Pack the key for a removal.  Without a destination the kernel removes the MAC's entry whole, however
    many it has; with a destination that it hasn't, it reports success and removes nothing."""
    return _NDMSG.pack(AF_BRIDGE, 0, 0, index, 0, NTF_SELF, 0) + attribute(NDA_LLADDR, mac.packed)


def pack_neighbour(neighbour: Neighbour, index: int) -> bytes:
    address = neighbour.address.packed
    size = len(address)
    return _NEIGHBOUR[size].pack(
        family_of(neighbour.address), 0, 0, index, NUD_PERMANENT, 0, 0,
        4 + size, NDA_DST, address,
        4 + 6, NDA_LLADDR, neighbour.mac.packed,
    )  # fmt: skip


def pack_neighbour_key(address: IPAddress, index: int) -> bytes:
    """Pack the key for a removal."""
    return _NDMSG.pack(family_of(address), 0, 0, index, 0, 0, 0) + attribute(NDA_DST, address.packed)


def pack_route(route: Route, index: int) -> bytes:
    destination = route.destination.network_address
    size = len(destination.packed)
    if route.gateway is None:
        return _LINK_ROUTE[size].pack(
            family_of(destination), route.destination.prefixlen, 0, 0,
            RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_LINK, RTN_UNICAST, RTNH_F_ONLINK if route.onlink else 0,
            4 + size, RTA_DST, destination.packed,
            4 + 4, RTA_OIF, index,
        )  # fmt: skip
    return _ROUTE[size].pack(
        family_of(destination), route.destination.prefixlen, 0, 0,
        RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK if route.onlink else 0,
        4 + size, RTA_DST, destination.packed,
        4 + size, RTA_GATEWAY, route.gateway.packed,
        4 + 4, RTA_OIF, index,
    )  # fmt: skip


def pack_route_key(route: Route, index: int) -> bytes:
    """Pack the key for the removal of the first of our routes to this destination by this gateway and
    interface.  The kernel compares no flags here, so two routes that differ in `onlink` alone are one to it;
    nor a gateway where none is given, so that this names the first of our routes by this interface."""
    destination = route.destination.network_address
    body = _RTMSG.pack(
        family_of(destination), route.destination.prefixlen, 0, 0,
        RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_NOWHERE, RTN_UNICAST, 0,
    ) + attribute(RTA_DST, destination.packed)  # fmt: skip
    if route.gateway is not None:
        body += attribute(RTA_GATEWAY, route.gateway.packed)
    return body + attribute(RTA_OIF, _INDEX.pack(index))


def pack_neighbours_query(family: int, index: int) -> bytes:
    """Pack the query for a dump of one device's neighbours, or of its FDB with AF_BRIDGE."""
    return _NDMSG.pack(family, 0, 0, 0, 0, 0, 0) + attribute(NDA_IFINDEX, _INDEX.pack(index))


def pack_routes_query(family: Family) -> bytes:
    """Pack the query for a dump of the main table."""
    return _RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0)


class NeighbourRow(NamedTuple):
    """An FDB entry or a neighbour as dumped.  `special` means an FDB entry whose destination has a port, VNI or
    interface of its own, or is a nexthop group."""

    family: int
    ifindex: int
    state: int
    destination: IPAddress | None
    mac: Mac | None
    special: bool

    @property
    def is_static(self) -> bool:
        """Put there by someone, not learned."""
        return bool(self.state & (NUD_PERMANENT | NUD_NOARP))


def parse_neighbour(body: memoryview) -> NeighbourRow:
    family, _, _, index, state, _, _ = _NDMSG.unpack_from(body)
    found = attributes(body, _NDMSG.size)
    destination = found.get(NDA_DST)
    mac = found.get(NDA_LLADDR)
    return NeighbourRow(
        family,
        index,
        state,
        None if destination is None else ip_address(bytes(destination)),
        Mac(bytes(mac)) if mac is not None and len(mac) == 6 else None,
        not _SPECIAL.isdisjoint(found),
    )


def neighbour_index(body: memoryview) -> int:
    """Return the interface of an FDB entry or neighbour message."""
    index: int = _NDMSG.unpack_from(body)[3]
    return index


_SPECIAL = frozenset((NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_NH_ID))


class RouteRow(NamedTuple):
    """A route as dumped.  `ifindex` and `gateway` are those of the first nexthop.  `plain` means that it has
    nothing but a destination, one gateway and one interface."""

    destination: bytes
    prefixlen: int
    tos: int
    protocol: int
    kind: int
    flags: int
    metric: int
    gateway: bytes | None
    ifindex: int
    plain: bool


def parse_route(body: memoryview) -> RouteRow:
    family, prefixlen, _, tos, _, protocol, _, kind, flags = _RTMSG.unpack_from(body)
    found = attributes(body, _RTMSG.size)
    plain = found.keys() <= _PLAIN
    destination = bytes(found[RTA_DST]) if RTA_DST in found else bytes(4 if family == Family.IPV4 else 16)
    metric = _U32.unpack(found[RTA_PRIORITY])[0] if RTA_PRIORITY in found else 0
    if RTA_MULTIPATH in found:  # struct rtnexthop: length u16, flags u8, weight u8, interface int; attributes
        first = found[RTA_MULTIPATH]
        length, index = struct.unpack_from("=H2xi", first)
        found = attributes(first[:length], 8)
    else:
        index = _INDEX.unpack(found[RTA_OIF])[0] if RTA_OIF in found else 0
    gateway = bytes(found[RTA_GATEWAY]) if RTA_GATEWAY in found else None
    return RouteRow(destination, prefixlen, tos, protocol, kind, flags, metric, gateway, index, plain)


_PLAIN = frozenset((RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE))
