"""Asking a real kernel by which interface it would send: routes, policy rules, and no way at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest

from overlayd.core.host.underlay import Reaching, UnderlayError
from overlayd.host.netlink.connection import Netlink, open_netlink
from overlayd.host.underlay import observe_underlay, observe_underlay_link
from support.netns import ip, node

TARGET = Reaching(IPv4Address("203.0.113.9"))


@pytest.fixture
async def netlink() -> AsyncIterator[Netlink]:
    """A node with two ways out: eth0 (10.99.0.1/16) and eth1 (10.98.0.1/16, 10.98.0.2/16)."""
    with node() as name:
        ip(name, "link add eth1 type bridge")
        ip(name, "link set eth1 up")
        ip(name, "address add 10.98.0.1/16 dev eth1")
        ip(name, "address add 10.98.0.2/16 dev eth1")
        ip(name, "route add default via 10.99.0.254")
        async with open_netlink(name) as netlink:
            yield netlink


async def found(netlink: Netlink, pick: Reaching = TARGET) -> tuple[str, str]:
    chosen = await observe_underlay(netlink, pick, None)
    assert await observe_underlay_link(netlink, pick) == chosen.link
    return chosen.link, str(chosen.address)


async def test_the_interface_is_that_of_the_route_and_follows_it(netlink: Netlink) -> None:
    name = str(netlink.netns)
    assert await found(netlink) == ("eth0", "10.99.0.1")
    assert await found(netlink, Reaching(IPv4Address("10.98.7.7"))) == ("eth1", "10.98.0.1")
    ip(name, "route add 203.0.113.0/24 via 10.98.0.254 src 10.98.0.2")
    assert await found(netlink) == ("eth1", "10.98.0.2")
    ip(name, "route add 203.0.113.9/32 via 10.99.0.7")
    assert await found(netlink) == ("eth0", "10.99.0.1")


async def test_a_policy_rule_counts(netlink: Netlink) -> None:
    name = str(netlink.netns)
    ip(name, "route add default via 10.98.0.254 table 77")
    ip(name, "rule add to 203.0.113.0/24 lookup 77")
    assert await found(netlink) == ("eth1", "10.98.0.1")


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole", ""])
async def test_where_no_route_leads_that_is_said(netlink: Netlink, kind: str) -> None:
    name = str(netlink.netns)
    ip(name, "route delete default")
    if kind:
        ip(name, f"route add {kind} 203.0.113.0/24")
    with pytest.raises(UnderlayError, match=r"no route leads to 203.0.113.9; there are .*eth1 \(10.98.0.1/16"):
        await observe_underlay(netlink, TARGET, None)
    assert await observe_underlay_link(netlink, TARGET) is None


async def test_an_address_of_the_host_itself_is_no_answer(netlink: Netlink) -> None:
    with pytest.raises(UnderlayError, match=r"10.98.0.1 is this host's own"):
        await observe_underlay(netlink, Reaching(IPv4Address("10.98.0.1")), None)
