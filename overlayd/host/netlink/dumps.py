"""Reading what a network namespace has: links, addresses, routes.

Hosts with many pods have many links, and every look at the kernel reads all of them, so these are read by
hand.  Sources: struct ifinfomsg and ifaddrmsg in linux/rtnetlink.h and linux/if_addr.h, linux/if_link.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from overlayd.core.host.interest import Interest
from overlayd.core.host.underlay import HostAddress, HostFacts, HostLink, HostRoute
from overlayd.core.kernel.driver import DevicePattern, is_our_device
from overlayd.core.kernel.items import TunKind, VxlanKind
from overlayd.core.network.addresses import Family, Mac
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.entries import RTN_UNICAST, RouteRow, pack_routes_query, parse_route
from overlayd.host.netlink.links import parse_vxlan
from overlayd.host.netlink.wire import attribute, attributes
from overlayd.host.tun import parse_tun

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBi")
_U32 = struct.Struct("=I")
_INDEX = struct.Struct("=i")

_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_F_SECONDARY = 1
_RT_SCOPE_UNIVERSE = 0
_DROPPING = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
"""RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT (linux/rtnetlink.h)."""


async def read_host_facts(netlink: Netlink) -> HostFacts:
    links = await read_links(netlink)
    names = {link.index: link.name for link in links}
    routes = await read_routes(netlink, names, Interest(), frozenset())
    return HostFacts(links, await read_addresses(netlink, names), routes)


async def read_links(netlink: Netlink) -> tuple[HostLink, ...]:
    query = _IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, _U32.pack(_RTEXT_FILTER_SKIP_STATS))
    messages = await netlink.dump(wire.RTM_GETLINK, query)
    names = {_IFINFOMSG.unpack_from(message.body)[2]: link_name(message) for message in messages}
    return tuple(_parse_link(message, names, netlink.devices) for message in messages)


def link_index(body: memoryview) -> int:
    """Read the interface that a message about a link or an address is about.

    struct ifinfomsg and struct ifaddrmsg both have it at byte 4.
    """
    index: int = _INDEX.unpack_from(body, 4)[0]
    return index


def link_name(message: wire.Message) -> str:
    """Read the name in a message about a link."""
    return _text(attributes(message.body, _IFINFOMSG.size)[_IFLA_IFNAME])


def _parse_link(message: wire.Message, names: dict[int, str], devices: Sequence[DevicePattern]) -> HostLink:
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(message.body)
    found = attributes(message.body, _IFINFOMSG.size)
    info = attributes(found[_IFLA_LINKINFO], 0) if _IFLA_LINKINFO in found else {}
    kind = _text(info.get(_IFLA_INFO_KIND, memoryview(b"")))
    tunnel = _parse_tunnel(kind, message, info, names)
    if kind == TunKind.word and tunnel is None:
        kind = "tap"  # the kernel says `tun` of both
    mac = bytes(found.get(_IFLA_ADDRESS, b""))
    return HostLink(
        index=index,
        name=names[index],
        mtu=_U32.unpack(found[_IFLA_MTU])[0],
        up=bool(flags & _IFF_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        kind=kind,
        mac=Mac(mac) if len(mac) == 6 else None,
        tunnel=tunnel,
        ours=is_our_device(devices, names[index], kind),
    )


def _parse_tunnel(
    kind: str, message: wire.Message, info: dict[int, memoryview], names: dict[int, str]
) -> VxlanKind | TunKind | None:
    if kind == VxlanKind.word:
        return parse_vxlan(message, names)
    if kind == TunKind.word and _IFLA_INFO_DATA in info:
        return parse_tun(info[_IFLA_INFO_DATA])
    return None


async def read_addresses(netlink: Netlink, names: dict[int, str]) -> tuple[HostAddress, ...]:
    messages = await netlink.dump(wire.RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0))
    return tuple(address for message in messages if (address := parse_address(message, names)) is not None)


def parse_address(message: wire.Message, names: dict[int, str]) -> HostAddress | None:
    """Read a message about an address; None where its interface is not among the names."""
    _, prefixlen, flags, scope, index = _IFADDRMSG.unpack_from(message.body)
    if index not in names:
        return None
    attrs = attributes(message.body, _IFADDRMSG.size)
    # IFA_ADDRESS is the other end's where there is one; IPv6 has IFA_LOCAL only then
    address = ip_address(bytes(attrs.get(_IFA_LOCAL) or attrs[_IFA_ADDRESS]))
    secondary = bool(flags & _IFA_F_SECONDARY)
    return HostAddress(names[index], address, prefixlen, scope == _RT_SCOPE_UNIVERSE, secondary)


async def read_route_rows(netlink: Netlink) -> list[RouteRow]:
    """Read the IPv4 routes of the main table; of those to one destination the first is the one that counts."""
    try:
        messages = await netlink.dump(wire.RTM_GETROUTE, pack_routes_query(Family.IPV4))
    except OSError as error:
        if error.errno == errno.ENOENT:  # there was never a route in this table
            return []
        raise
    return [parse_route(message.body) for message in messages]


async def read_routes(
    netlink: Netlink, names: dict[int, str], interest: Interest, ours: frozenset[str]
) -> tuple[HostRoute, ...]:
    """List the routes of the main table that matter, but for those by our own devices."""
    found = []
    for row in await read_route_rows(netlink):
        link = names.get(row.ifindex, "")
        first, direct = int.from_bytes(row.destination), row.gateway is None
        if link in ours or not interest.in_route(4, first, row.prefixlen, link, direct=direct):
            continue
        if row.kind in _DROPPING or (row.kind == RTN_UNICAST and link):
            found.append(
                HostRoute(
                    ip_network((row.destination, row.prefixlen)),
                    link,
                    None if row.gateway is None else ip_address(row.gateway),
                    row.metric,
                    row.protocol,
                    _DROPPING.get(row.kind, ""),
                )
            )
    return tuple(found)


def _text(payload: memoryview) -> str:
    return bytes(payload).rstrip(b"\0").decode(errors="replace")
