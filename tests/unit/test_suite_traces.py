"""What counts as a trace of a node that left: what names its subnet or its underlay address, and nothing else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from overlayd.core.network.addresses import Mac
from overlayd.core.status.status import PeerState, PeerStatus
from overlayd.host.netlink.entries import AF_BRIDGE, NUD_PERMANENT, NeighbourRow, RouteRow
from overlayd.lab.suite.traces import Tables, traces

SUBNET, UNDERLAY = IPv4Network("10.244.3.0/24"), IPv4Address("10.99.0.3")
MAC = Mac.parse("0a:00:00:00:00:03")
REACHABLE = 0x02
"""NUD_REACHABLE (linux/neighbour.h): learned, not set."""


def route(destination: str, gateway: str | None) -> RouteRow:
    network = IPv4Network(destination)
    packed = IPv4Address(gateway).packed if gateway else None
    return RouteRow(network.network_address.packed, network.prefixlen, 0, 4, 1, 0, 0, packed, 2, plain=True)


def neighbour(family: int, destination: str, state: int = NUD_PERMANENT) -> NeighbourRow:
    return NeighbourRow(family, 2, state, IPv4Address(destination), MAC, special=False)


def peer(subnet: str, public_ip: str) -> PeerStatus:
    return PeerStatus("node", subnet, public_ip, PeerState.IN_SYNC, 0.0)


@pytest.mark.parametrize(
    ("tables", "lines"),
    [
        (Tables((route("10.244.3.0/24", "10.244.3.0"),), (), ()), {"route 10.244.3.0/24 via 10.244.3.0"}),
        (Tables((route("10.244.3.7/32", None),), (), ()), {"route 10.244.3.7/32"}),
        (Tables((route("10.244.0.0/16", "10.99.0.9"), route("10.244.4.0/24", "10.99.0.3")), (), ()), set()),
        (
            Tables((), (neighbour(2, "10.244.3.0"),), ()),
            {"neighbour 10.244.3.0 lladdr 0a:00:00:00:00:03"},
        ),
        (Tables((), (neighbour(2, "10.244.3.2", REACHABLE), neighbour(2, "10.99.0.3")), ()), set()),
        (
            Tables((), (), (neighbour(AF_BRIDGE, "10.99.0.3"), neighbour(AF_BRIDGE, "10.99.0.4"))),
            {"FDB entry 0a:00:00:00:00:03 dst 10.99.0.3"},
        ),
        (
            Tables((), (), (), (peer("10.244.3.0/24", "10.99.0.3"), peer("10.244.4.0/24", "10.99.0.4"))),
            {"encap 10.244.3.0/24 to 10.99.0.3"},
        ),
    ],
)
def test_traces_are_what_names_the_peer(tables: Tables, lines: set[str]) -> None:
    assert traces(tables, SUBNET, UNDERLAY) == lines
