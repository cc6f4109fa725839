"""What keeps a network from working on a host, and what does not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.host.preflight import HostFindings, PreflightRequest, find_obstacles
from overlayd.core.host.underlay import HostAddress, HostFacts, HostLink, HostRoute
from overlayd.core.kernel.items import VxlanKind
from overlayd.core.network.addresses import Family
from overlayd.core.network.view import Leg, Underlay
from overlayd.core.status.problem import Problem

NODE = IPv4Address("10.99.0.1")
UNDERLAY = Underlay("eth0", NODE, (IPv4Network("10.99.0.0/16"),), 1500, NODE)
NETWORK = IPv4Network("10.244.0.0/16")
SUBNET_LEN = 24


def legs(network: IPv4Network) -> tuple[Leg, ...]:
    return (Leg(Family.IPV4, network, SUBNET_LEN, NODE, None, "ovl.1", 1450),)


REQUEST = PreflightRequest(legs(NETWORK), UNDERLAY, port=8472, vni=1)
LINKS = (
    HostLink(1, "lo", 65536, up=True, loopback=True),
    HostLink(2, "eth0", 1500, up=True),
    HostLink(3, "cni0", 1450, up=True, kind="bridge"),
    HostLink(4, "veth1", 1450, up=True, kind="veth"),
    HostLink(5, "tun0", 1500, up=True, kind="tun"),
    HostLink(6, "eth1", 1500, up=True),
)
BASE = HostFacts(
    LINKS,
    (HostAddress("eth0", NODE, 16),),
    (
        HostRoute(ip_network("0.0.0.0/0"), "eth0", IPv4Address("10.99.255.254")),
        HostRoute(ip_network("10.99.0.0/16"), "eth0", protocol=2),
    ),
)


def tunnel(name: str, vni: int = 1, port: int = 8472, *, up: bool = True, extra: tuple[str, ...] = ()) -> HostLink:
    return HostLink(
        9,
        name,
        1450,
        up,
        kind="vxlan",
        tunnel=VxlanKind(vni, NODE, "eth0", port, extra=extra),
        ours=name.startswith("ovl."),
    )


def route(destination: str, link: str, gateway: str | None = None, protocol: int = 3) -> HostRoute:
    return HostRoute(ip_network(destination), link, IPv4Address(gateway) if gateway else None, protocol=protocol)


def address(text: str, link: str) -> HostAddress:
    interface = ip_interface(text)
    return HostAddress(link, interface.ip, interface.network.prefixlen)


def with_(*more: HostLink | HostAddress | HostRoute) -> HostFacts:
    return HostFacts(
        (*BASE.links, *(item for item in more if isinstance(item, HostLink))),
        (*BASE.addresses, *(item for item in more if isinstance(item, HostAddress))),
        (*BASE.routes, *(item for item in more if isinstance(item, HostRoute))),
    )


def found(host: HostFacts = BASE, request: PreflightRequest = REQUEST, **facts: Any) -> tuple[Problem, ...]:
    return find_obstacles(request, host, HostFindings(**facts))


def test_an_ordinary_host_is_fine() -> None:
    assert found() == ()
    assert found(request=replace(REQUEST, port=None, vni=None)) == ()


@pytest.mark.parametrize(
    "host",
    [
        with_(
            tunnel("ovl.1"), address("10.244.3.0/32", "ovl.1"), route("10.244.4.0/24", "ovl.1", "10.244.4.0", 111)
        ),
        with_(tunnel("ovl.1"), route("10.244.4.0/24", "ovl.1", "10.244.4.0", 4)),  # leaves with our device
        with_(address("10.244.3.1/24", "cni0"), route("10.244.3.0/24", "cni0", protocol=2)),
        with_(route("10.244.3.7/32", "veth1")),
        with_(route("10.244.4.0/24", "eth0", "10.99.0.4", 111)),  # host-gw's
        with_(route("10.0.0.0/8", "eth1", "192.0.2.1")),  # wider, by a gateway
        with_(route("10.245.0.0/16", "tun0"), address("10.243.0.1/16", "tun0")),
        with_(HostRoute(ip_network("fd00::/8"), "tun0")),
    ],
    ids=["our device", "on our device", "bridge", "ptp", "host-gw", "aggregate", "beside", "IPv6"],
)
def test_what_is_ours_or_the_pods_or_wider_is_no_overlap(host: HostFacts) -> None:
    assert found(host, port_free=not any(link.name == "ovl.1" for link in host.links)) == ()


@pytest.mark.parametrize(
    ("host", "text", "command"),
    [
        (with_(route("10.244.4.0/24", "tun0")), "10.244.4.0/24 on tun0", "ip route delete 10.244.4.0/24 dev tun0"),
        (with_(route("10.244.3.0/24", "eth1")), "10.244.3.0/24 on eth1", "ip route delete 10.244.3.0/24 dev eth1"),
        (with_(route("10.0.0.0/8", "tun0")), "10.0.0.0/8 on tun0", "ip route delete 10.0.0.0/8 dev tun0"),
        (
            with_(route("10.244.0.0/16", "eth1", "192.0.2.1")),
            "10.244.0.0/16 on eth1",
            "ip route delete 10.244.0.0/16 via 192.0.2.1 dev eth1",
        ),
        (
            with_(route("10.244.4.0/24", "eth0", "10.99.0.4")),  # flannel's host-gw
            "10.244.4.0/24 on eth0",
            "ip route delete 10.244.4.0/24 via 10.99.0.4 dev eth0",
        ),
        (
            with_(route("10.244.4.0/24", "eth1", "192.0.2.1", 111)),
            "10.244.4.0/24 on eth1",
            "ip route delete 10.244.4.0/24 via 192.0.2.1 dev eth1",
        ),
        (with_(route("10.244.0.0/16", "cni0")), "10.244.0.0/16 on cni0", "ip route delete 10.244.0.0/16 dev cni0"),
        (with_(address("10.244.9.1/32", "lo")), "10.244.9.1/32 on lo", "ip address delete 10.244.9.1/32 dev lo"),
        (
            with_(address("10.244.9.1/8", "tun0")),
            "10.244.9.1/8 on tun0",
            "ip address delete 10.244.9.1/8 dev tun0",
        ),
        (
            with_(tunnel("flannel.1", vni=7, port=1), route("10.244.4.0/24", "flannel.1", "10.244.4.0")),
            "10.244.4.0/24 on flannel.1",
            "ip link delete flannel.1",
        ),
    ],
)
def test_what_stands_in_the_way_is_named_with_the_command(host: HostFacts, text: str, command: str) -> None:
    (problem,) = found(host)
    assert problem.code == "network-overlap"
    assert f"network 10.244.0.0/16 overlaps {text}, which is not overlayd's" in problem.text
    assert f"({command})" in problem.remedy


def test_the_many_prefixes_of_one_interface_are_one_problem() -> None:
    (problem,) = found(with_(*(route(f"10.244.{n}.0/24", "tun0") for n in range(10))))
    assert "10.244.0.0/24, 10.244.1.0/24, 10.244.2.0/24 and 7 more on tun0" in problem.text


@pytest.mark.parametrize("network", ["10.99.0.0/16", "10.99.128.0/17", "10.0.0.0/8"])
def test_a_network_over_the_underlay_is_one_problem(network: str) -> None:
    (problem,) = found(request=replace(REQUEST, legs=legs(IPv4Network(network))))
    assert problem.code == "network-overlap"
    assert f"network {network} overlaps the underlay eth0 (10.99.0.0/16" in problem.text


def test_a_public_address_inside_the_network_is_named() -> None:
    public = replace(UNDERLAY, public_ip=IPv4Address("10.244.0.9"))
    (problem,) = found(request=replace(REQUEST, underlay=public))
    assert "10.244.0.9" in problem.text


@pytest.mark.parametrize(
    ("links", "port_free", "codes"),
    [
        ([], True, []),
        ([], False, ["port-taken"]),
        ([tunnel("ovl.1")], False, []),
        ([tunnel("ovl.1", up=False)], True, []),
        ([tunnel("ovl.1", up=False)], False, ["port-taken"]),
        ([tunnel("ovl.2", vni=2)], False, []),  # left over from another config
        ([tunnel("flannel.1")], False, ["vxlan-taken"]),
        ([tunnel("flannel.1", up=False)], True, ["vxlan-taken"]),
        ([tunnel("flannel.1"), tunnel("ovl.1")], False, ["vxlan-taken"]),
        ([tunnel("flannel.7", vni=7)], False, []),
        ([tunnel("flannel.1", port=4789)], True, []),
        ([tunnel("vxlan_sys", vni=0, extra=("external",))], False, ["port-taken"]),
    ],
)
def test_ports_and_vnis(links: list[HostLink], port_free: bool, codes: list[str]) -> None:
    problems = found(with_(*links), port_free=port_free)
    assert [problem.code for problem in problems] == codes
    foreign = [link.name for link in links if not link.name.startswith("ovl")]
    for problem in problems:
        assert "8472" in problem.text
        assert all(name in problem.text for name in foreign)


def test_a_backend_that_is_no_vxlan_shares_its_port_with_none() -> None:
    intent = replace(REQUEST, vni=None)
    (problem,) = found(with_(tunnel("flannel.7", vni=7)), intent, port_free=False)
    assert (problem.code, "flannel.7" in problem.text) == ("port-taken", True)


def test_the_owner_of_a_taken_port_is_named_where_it_can_be_seen() -> None:
    (problem,) = found(port_free=False, port_owner="flanneld (pid 4711)")
    assert problem.text == "UDP port 8472 is taken by flanneld (pid 4711)"
    (problem,) = found(port_free=False)
    assert "taken by another socket" in problem.text
    assert "ss -ulnp" in problem.remedy


def test_a_datapath_yields_to_no_vxlan_device_but_to_ours_that_goes() -> None:
    intent = replace(REQUEST, vni=None, tun=True)
    assert found(with_(tunnel("ovl.1")), intent, port_free=False) == ()
    assert [p.code for p in found(with_(tunnel("ovl.1", up=False)), intent, port_free=False)] == ["port-taken"]


def test_a_tun_device_that_cannot_be_made_is_told_with_the_reason() -> None:
    (problem,) = found(
        request=replace(REQUEST, vni=None, tun=True), tun_trouble="there is no /dev/net/tun: load it"
    )
    assert problem.code == "tun-missing"
    assert "there is no /dev/net/tun" in problem.text
    assert found(tun_trouble="there is no /dev/net/tun: load it") == ()


def test_what_the_kernel_or_the_process_lacks() -> None:
    assert [p.code for p in found(privileged=False)] == ["not-privileged"]
    assert [p.code for p in found(has_vxlan=False)] == ["vxlan-missing"]
    assert found(request=replace(REQUEST, vni=None), has_vxlan=False) == ()
    assert found(forwards=False) == ()
    assert [p.code for p in found(forwards=False, can_forward=False)] == ["forwarding-off"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 32), st.sampled_from(["tun0", "eth1"]))
def test_a_connected_prefix_of_a_stranger_is_a_problem_exactly_if_it_overlaps(
    base: int, length: int, link: str
) -> None:
    prefix = IPv4Network((base, length), strict=False)
    problems = found(with_(HostRoute(prefix, link)))
    assert bool(problems) == prefix.overlaps(NETWORK)


@given(st.integers(0, 2**32 - 1), st.integers(1, 32))
def test_pods_of_this_node_never_keep_it_from_starting_again(base: int, length: int) -> None:
    prefix = IPv4Network((base, length), strict=False)
    host = with_(HostRoute(prefix, "cni0"), HostAddress("cni0", prefix.network_address, length))
    wide = length < SUBNET_LEN
    assert bool(found(host)) == (wide and prefix.overlaps(NETWORK))
