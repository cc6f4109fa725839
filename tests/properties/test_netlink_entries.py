"""The hand-packed messages are, byte for byte, what pyroute2 makes of the same values, and are read back."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from overlayd.core.kernel.items import FdbEntry, Neighbour, Route
from overlayd.core.network.addresses import Family, IPAddress, IPNetwork, Mac
from overlayd.host.netlink import entries

indices = st.integers(1, 2**31 - 1)
macs = st.binary(min_size=6, max_size=6).map(Mac)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@st.composite
def networks(draw: st.DrawFn) -> IPNetwork:
    if draw(st.booleans()):
        return IPv4Network((draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 32))), strict=False)
    return IPv6Network((draw(st.integers(0, 2**128 - 1)), draw(st.integers(0, 128))), strict=False)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    destination = draw(networks())
    gateway = draw(st.none() | st.ip_addresses(v=4 if destination.version == 4 else 6))
    return Route(destination, gateway, "ovl.1", draw(st.booleans()))


def encoded(message: ndmsg | rtmsg, fields: dict[str, int], attrs: list[tuple[str, object]]) -> bytes:
    """What pyroute2 makes of it, without the header."""
    for key, value in fields.items():
        message[key] = value
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data[16:])


def family(address: IPAddress) -> int:
    return Family.IPV4 if address.version == 4 else Family.IPV6


@given(macs, addresses, indices)
def test_fdb_entry(mac: Mac, destination: IPAddress, index: int) -> None:
    packed = entries.pack_fdb_entry(FdbEntry("ovl.1", mac, destination), index)
    fields = {"family": 7, "ifindex": index, "state": 0xC0, "flags": 2}
    assert packed == encoded(ndmsg(), fields, [("NDA_DST", str(destination)), ("NDA_LLADDR", str(mac))])
    row = entries.parse_neighbour(memoryview(packed))
    assert row == entries.NeighbourRow(7, index, 0xC0, destination, mac, special=False)
    assert row.is_static
    key = encoded(ndmsg(), {"family": 7, "ifindex": index, "flags": 2}, [("NDA_LLADDR", str(mac))])
    assert entries.pack_fdb_key(mac, index) == key


@given(macs, addresses, indices)
def test_neighbour(mac: Mac, address: IPAddress, index: int) -> None:
    packed = entries.pack_neighbour(Neighbour("ovl.1", address, mac), index)
    fields = {"family": family(address), "ifindex": index, "state": 0x80}
    assert packed == encoded(ndmsg(), fields, [("NDA_DST", str(address)), ("NDA_LLADDR", str(mac))])
    row = entries.parse_neighbour(memoryview(packed))
    assert row == entries.NeighbourRow(family(address), index, 0x80, address, mac, special=False)
    assert entries.neighbour_index(memoryview(packed)) == index
    key = encoded(ndmsg(), {"family": family(address), "ifindex": index}, [("NDA_DST", str(address))])
    assert entries.pack_neighbour_key(address, index) == key


@given(routes(), indices)
def test_route(route: Route, index: int) -> None:
    destination = route.destination
    packed = entries.pack_route(route, index)
    fields = {
        "family": family(destination.network_address),
        "dst_len": destination.prefixlen,
        "table": 254,
        "proto": 111,
        "scope": 253 if route.gateway is None else 0,
        "type": 1,
        "flags": 4 if route.onlink else 0,
    }
    to = ("RTA_DST", str(destination.network_address))
    by = [("RTA_GATEWAY", str(route.gateway))] if route.gateway is not None else []
    out = ("RTA_OIF", index)
    assert packed == encoded(rtmsg(), fields, [to, *by, out])
    row = entries.parse_route(memoryview(packed))
    assert (row.destination, row.prefixlen) == (destination.network_address.packed, destination.prefixlen)
    gateway = route.gateway.packed if route.gateway is not None else None
    assert (row.gateway, row.ifindex, row.protocol) == (gateway, index, 111)
    assert (row.kind, row.tos, row.metric, row.plain) == (1, 0, 0, True)
    assert bool(row.flags & entries.RTNH_F_ONLINK) == route.onlink
    key = encoded(rtmsg(), {**fields, "scope": 255, "flags": 0}, [to, *by, out])
    assert entries.pack_route_key(route, index) == key


@given(indices, st.sampled_from([7, 2, 10, 0]))
def test_queries(index: int, af: int) -> None:
    query = encoded(ndmsg(), {"family": af}, [("NDA_IFINDEX", index)])
    assert entries.pack_neighbours_query(af, index) == query
    assert entries.pack_routes_query(Family.IPV4) == encoded(rtmsg(), {"family": 2, "table": 254}, [])


@given(routes(), indices, st.integers(1, 2**32 - 1))
def test_a_route_with_more_than_a_gateway_is_not_plain(route: Route, index: int, metric: int) -> None:
    packed = entries.pack_route(route, index) + struct.pack("=HHI", 8, entries.RTA_PRIORITY, metric)
    row = entries.parse_route(memoryview(packed))
    assert row.metric == metric
    assert not row.plain


@given(st.lists(st.tuples(st.ip_addresses(v=4), indices), min_size=1, max_size=4))
def test_of_several_nexthops_the_first_is_read(hops: list[tuple[IPv4Address, int]]) -> None:
    message = rtmsg()
    nested = [{"oif": index, "attrs": [("RTA_GATEWAY", str(gateway))]} for gateway, index in hops]
    attrs: list[tuple[str, object]] = [("RTA_DST", "10.244.2.0"), ("RTA_MULTIPATH", nested)]
    packed = encoded(message, {"family": 2, "dst_len": 24, "table": 254, "proto": 111, "type": 1}, attrs)
    row = entries.parse_route(memoryview(packed))
    assert (row.gateway, row.ifindex) == (hops[0][0].packed, hops[0][1])
    assert not row.plain


@given(addresses)
def test_family_of(address: IPAddress) -> None:
    assert entries.family_of(address) is (Family.IPV6 if isinstance(address, IPv6Address) else Family.IPV4)
