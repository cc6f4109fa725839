"""Which interface and address carry the overlay, and what is said where none fits."""

from __future__ import annotations

import argparse
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_interface, ip_network

import pytest

from overlayd.cli import CommandError
from overlayd.cli.options import add_iface_option, pick_iface
from overlayd.core.host.underlay import (
    HostAddress,
    HostFacts,
    HostLink,
    HostRoute,
    InterfaceSelector,
    Matching,
    Reaching,
    RouteLookup,
    UnderlayError,
    choose_underlay,
    find_underlay_link,
)
from overlayd.core.network.view import Underlay

LO = HostLink(1, "lo", 65536, up=True, loopback=True)
ETH0 = HostLink(2, "eth0", 1500, up=True)
ETH1 = HostLink(3, "eth1", 9000, up=True)
OVL = HostLink(4, "ovl.1", 1450, up=True, kind="vxlan", ours=True)
LINKS = (LO, ETH0, ETH1, OVL)
DEFAULT = ip_network("0.0.0.0/0")


def address(link: str, text: str, *, is_global: bool = True, secondary: bool = False) -> HostAddress:
    interface = ip_interface(text)
    return HostAddress(link, interface.ip, interface.network.prefixlen, is_global, secondary)


ADDRESSES = (
    address("lo", "127.0.0.1/8", is_global=False),
    address("eth0", "10.0.0.5/24"),
    address("eth1", "192.168.7.1/16"),
    address("ovl.1", "10.244.3.0/32"),
    address("eth0", "fe80::1/64", is_global=False),
)
ROUTES = (
    HostRoute(DEFAULT, "eth0", IPv4Address("10.0.0.1"), metric=100),
    HostRoute(ip_network("10.0.0.0/24"), "eth0"),
    HostRoute(ip_network("10.0.9.0/24"), "eth0", IPv4Address("10.0.0.9")),
    HostRoute(ip_network("192.168.0.0/16"), "eth1"),
)
FACTS = HostFacts(LINKS, ADDRESSES, ROUTES)
THERE_ARE = r"there are eth0 \(10\.0\.0\.5/24\), eth1 \(192\.168\.7\.1/16\)"


def test_the_default_routes_interface_is_chosen() -> None:
    ip = IPv4Address("10.0.0.5")
    assert choose_underlay(FACTS, None, None) == Underlay("eth0", ip, (IPv4Network("10.0.0.0/24"),), 1500, ip)


def test_of_several_default_routes_the_one_of_least_metric_counts() -> None:
    routes = (*ROUTES, HostRoute(DEFAULT, "eth1", IPv4Address("192.168.0.1"), metric=50))
    assert choose_underlay(HostFacts(LINKS, ADDRESSES, routes), None, None).link == "eth1"


@pytest.mark.parametrize("name", ["lo", "ovl.1"])
def test_loopback_and_our_own_device_are_never_chosen_by_themselves(name: str) -> None:
    routes = (HostRoute(DEFAULT, name, metric=0), *ROUTES)
    assert choose_underlay(HostFacts(LINKS, ADDRESSES, routes), None, None).link == "eth0"
    with pytest.raises(UnderlayError, match="no IPv4 default route"):
        choose_underlay(HostFacts(LINKS, ADDRESSES, routes[:1]), None, None)


@pytest.mark.parametrize("iface", ["eth1", "192.168.7.1"])
def test_an_interface_is_named_by_its_name_or_an_address(iface: str) -> None:
    chosen = choose_underlay(FACTS, iface, None)
    assert (chosen.link, chosen.address, chosen.mtu) == ("eth1", IPv4Address("192.168.7.1"), 9000)


def test_a_named_address_is_the_one_that_is_used() -> None:
    second = address("eth0", "10.0.0.6/24", secondary=True)
    facts = HostFacts(LINKS, (*ADDRESSES, second), ROUTES)
    assert choose_underlay(facts, "10.0.0.6", None).address == IPv4Address("10.0.0.6")


def test_the_public_address_replaces_what_is_told_and_nothing_else() -> None:
    public = IPv4Address("198.51.100.7")
    chosen = choose_underlay(FACTS, None, public)
    assert (chosen.address, chosen.public_ip) == (IPv4Address("10.0.0.5"), public)


def test_a_primary_global_ipv4_address_comes_first() -> None:
    addresses = (
        address("eth0", "2001:db8::5/64"),
        address("eth0", "169.254.1.1/16", is_global=False),
        address("eth0", "10.0.0.7/24", secondary=True),
        address("eth0", "10.0.0.5/24"),
        address("eth0", "10.1.0.5/24"),
    )
    facts = HostFacts(LINKS, addresses, ROUTES)
    assert choose_underlay(facts, "eth0", None).address == IPv4Address("10.0.0.5")


def test_only_what_is_reached_without_a_gateway_is_on_link() -> None:
    routes = (
        HostRoute(DEFAULT, "eth0"),  # a point-to-point link's: it makes nobody a neighbour
        HostRoute(ip_network("10.0.0.1/32"), "eth0"),
        HostRoute(ip_network("10.0.0.0/24"), "eth0"),
        HostRoute(ip_network("10.0.0.0/24"), "eth0", metric=100),
        HostRoute(ip_network("10.7.0.0/16"), "eth0", IPv4Address("10.0.0.9")),
    )
    chosen = choose_underlay(HostFacts(LINKS, ADDRESSES, routes), "eth0", None)
    assert chosen.networks == (IPv4Network("10.0.0.0/24"), IPv4Network("10.0.0.1/32"))


@pytest.mark.parametrize(
    ("iface", "complaint"),
    [
        ("eth7", "interface 'eth7' does not exist; " + THERE_ARE),
        ("10.0.0.99", "no interface has the address 10.0.0.99; " + THERE_ARE),
        ("ovl.1", "interface 'ovl.1' belongs to the overlay, which needs one below it; " + THERE_ARE),
        ("", "interface '' does not exist"),
        ("fe80::1", "interface 'fe80::1' does not exist"),
    ],
)
def test_a_wrong_interface_is_named_with_what_there_is(iface: str, complaint: str) -> None:
    with pytest.raises(UnderlayError, match=complaint):
        choose_underlay(FACTS, iface, None)


def test_an_interface_without_an_address_is_refused() -> None:
    facts = HostFacts(LINKS, (address("eth0", "fd00::5/64"), address("eth1", "192.168.7.1/16")), ROUTES)
    with pytest.raises(
        UnderlayError, match=r"interface 'eth0' has no global IPv4 address; there are eth0 \(no IPv4 address\)"
    ):
        choose_underlay(facts, None, None)


def test_a_bare_host_is_told_so() -> None:
    with pytest.raises(UnderlayError, match="there is no interface but the loopback"):
        choose_underlay(HostFacts((LO,), (), ()), None, None)


def test_the_address_of_ipv6_is_not_mistaken() -> None:
    facts = HostFacts(LINKS, (HostAddress("eth0", IPv6Address("2001:db8::5"), 64), *ADDRESSES), ROUTES)
    assert choose_underlay(facts, "eth0", None).address == IPv4Address("10.0.0.5")


@pytest.mark.parametrize(
    ("pattern", "link", "address"),
    [
        ("eth1", "eth1", "192.168.7.1"),
        ("eth", "eth0", "10.0.0.5"),  # the first that fits
        (r"^192\.168\.", "eth1", "192.168.7.1"),
        ("^168", "", ""),
        (r"0\.6$", "eth0", "10.0.0.6"),  # the address that fits is the one that is used
        ("1", "eth0", "10.0.0.5"),  # an address comes before a name
        ("lo|ovl|eth1", "eth1", "192.168.7.1"),  # neither loopback nor our own
        ("127|10[.]244|192", "eth1", "192.168.7.1"),
        ("ppp|wlan", "wlan0", "172.16.0.9"),  # of those with a fitting name one that has an address
        ("ppp", "", ""),
    ],
)
def test_a_pattern_is_looked_for_in_addresses_and_then_in_names(pattern: str, link: str, address: str) -> None:
    links = (*LINKS, HostLink(5, "ppp0", 1400, up=False), HostLink(6, "wlan0", 1500, up=True))
    addresses = (*ADDRESSES, *(second("10.0.0.6/24"), first("wlan0", "172.16.0.9/24")))
    facts = HostFacts(links, addresses, ROUTES)
    pick = Matching(re.compile(pattern))
    if link:
        chosen = choose_underlay(facts, pick, None)
        assert (chosen.link, str(chosen.address)) == (link, address)
        assert find_underlay_link(facts, pick) == link
    else:
        with pytest.raises(UnderlayError, match="there are eth0"):
            choose_underlay(facts, pick, None)


def first(link: str, text: str) -> HostAddress:
    return address(link, text)


def second(text: str) -> HostAddress:
    return address("eth0", text, secondary=True)


def test_a_pattern_that_nothing_fits_is_told_what_there_is() -> None:
    with pytest.raises(
        UnderlayError, match=r"^no interface has an address or a name with 'wg\[1-9\]'; " + THERE_ARE
    ):
        choose_underlay(FACTS, Matching(re.compile("wg[1-9]")), None)
    assert find_underlay_link(FACTS, Matching(re.compile("wg[1-9]"))) is None


TARGET = Reaching(IPv4Address("192.168.200.1"))


@pytest.mark.parametrize(
    ("way", "link", "address"),
    [
        (RouteLookup("eth1", IPv4Address("192.168.7.1")), "eth1", "192.168.7.1"),
        (RouteLookup("eth1", None), "eth1", "192.168.7.1"),
        (
            RouteLookup("eth1", IPv4Address("10.0.0.5")),
            "eth1",
            "192.168.7.1",
        ),  # another interface's: not what peers reach
    ],
)
def test_the_way_to_an_address_leads_by_an_interface(way: RouteLookup, link: str, address: str) -> None:
    chosen = choose_underlay(FACTS, TARGET, None, way)
    assert (chosen.link, str(chosen.address)) == (link, address)
    assert find_underlay_link(FACTS, TARGET, way) == link


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (None, "^no route leads to 192.168.200.1; " + THERE_ARE),
        (RouteLookup("lo", IPv4Address("127.0.0.1")), "192.168.200.1 is this host's own"),
        (RouteLookup("ovl.1", IPv4Address("10.244.3.0")), "'ovl.1' belongs to the overlay"),
        (RouteLookup("gone", None), "interface 'gone' does not exist"),
    ],
)
def test_a_way_that_is_of_no_use_is_refused(way: RouteLookup | None, said: str) -> None:
    with pytest.raises(UnderlayError, match=said):
        choose_underlay(FACTS, TARGET, None, way)


def picked(*arguments: str) -> InterfaceSelector:
    parser = argparse.ArgumentParser()
    add_iface_option(parser)
    return pick_iface(parser.parse_args(arguments))


def test_three_options_ask_for_an_interface_and_one_at_a_time() -> None:
    assert picked() is None
    assert picked("--iface", "eth1") == "eth1"
    assert picked("--iface-regex", "^eth") == Matching(re.compile("^eth"))
    assert picked("--iface-can-reach", "192.168.200.1") == TARGET
    with pytest.raises(CommandError, match=r"^--iface and --iface-can-reach both choose the underlay interface"):
        picked("--iface", "eth1", "--iface-can-reach", "192.168.200.1")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--iface-regex=(", r"'\(' is not a regular expression: missing \)"),
        ("--iface-regex=", "the pattern is empty and matches every interface"),
        ("--iface-can-reach=gateway", "'gateway' is not an IPv4 address like 10.0.0.1"),
        ("--iface-can-reach=127.0.0.1", "is not an address of another host"),
        ("--iface-can-reach=224.0.0.1", "is not an address of another host"),
    ],
)
def test_an_option_that_can_not_be_meant_is_refused(
    option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        picked(option)
    assert re.search(said, capsys.readouterr().err)
