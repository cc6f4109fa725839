"""Asking the kernel how this node stands in the network below."""

from __future__ import annotations

from ipaddress import IPv4Address

from overlayd.core.host.underlay import (
    HostFacts,
    InterfaceSelector,
    Reaching,
    RouteLookup,
    choose_underlay,
    find_underlay_link,
)
from overlayd.core.network.view import Underlay
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.dumps import read_host_facts
from overlayd.host.netlink.route_get import find_route_lookup


async def observe_underlay(netlink: Netlink, pick: InterfaceSelector, public_ip: IPv4Address | None) -> Underlay:
    """Observe the underlay as it is now, by the rules of `choose_underlay`.

    `public_ip` is what peers are told in place of the interface's address.  Raises UnderlayError where nothing
    fits, OSError where the kernel can't be asked.
    """
    facts, way = await _look(netlink, pick)
    return choose_underlay(facts, pick, public_ip, way)


async def observe_underlay_link(netlink: Netlink, pick: InterfaceSelector) -> str | None:
    """Observe the interface alone, see `find_underlay_link`.  Raises OSError where the kernel can't be asked."""
    facts, way = await _look(netlink, pick)
    return find_underlay_link(facts, pick, way)


async def _look(netlink: Netlink, pick: InterfaceSelector) -> tuple[HostFacts, RouteLookup | None]:
    facts = await read_host_facts(netlink)
    if not isinstance(pick, Reaching):
        return facts, None
    return facts, await find_route_lookup(netlink, pick.address, {link.index: link.name for link in facts.links})
