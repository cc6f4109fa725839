"""What matters of a host's routes and addresses is what the library of addresses says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.host.interest import Interest
from support.strategies import prefixes

WORLD = IPv4Network("0.0.0.0/0")
NETWORKS = st.lists(prefixes(WORLD), max_size=2).map(tuple)


@given(
    NETWORKS, st.sets(st.integers(0, 2**32 - 1), max_size=4), prefixes(WORLD), st.sampled_from(["eth0", "eth1"])
)
def test_a_route_matters_if_it_touches_the_overlay_a_peer_or_the_underlay(
    networks: tuple[IPv4Network, ...], peers: set[int], route: IPv4Network, link: str
) -> None:
    interest = Interest(networks, frozenset({"eth0"}), tuple(sorted(peers)), everything=False)
    touches = any(route.overlaps(network) for network in networks)
    leads = any(IPv4Address(peer) in route for peer in peers)
    for direct in (False, True):
        expected = route.prefixlen == 0 or touches or leads or (direct and link == "eth0")
        assert interest.in_route(4, int(route.network_address), route.prefixlen, link, direct=direct) == expected


@given(NETWORKS, st.integers(0, 2**32 - 1), st.sampled_from(["eth0", "eth1"]))
def test_an_address_matters_on_the_underlay_and_inside_the_overlay(
    networks: tuple[IPv4Network, ...], address: int, link: str
) -> None:
    interest = Interest(networks, frozenset({"eth0"}), everything=False)
    inside = any(IPv4Address(address) in network for network in networks)
    assert interest.in_address(4, address, link) == (inside or link == "eth0")


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_everything_matters_while_nothing_is_known(first: int, prefixlen: int) -> None:
    assert Interest().in_route(4, first, prefixlen, "x", direct=False)
    assert Interest().in_address(4, first, "x")
