"""Asking the kernel how this node stands in the network below."""

from __future__ import annotations

from ipaddress import IPv4Address

from overlayd.core.model import Underlay
from overlayd.core.underlay import choose_underlay
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.facts import read_host_facts


async def observe_underlay(netlink: Netlink, iface: str | None, public_ip: IPv4Address | None) -> Underlay:
    """The underlay as it is now, by the rules of `choose_underlay`.

    `iface` is an interface's name or an IPv4 address on it, None for that of the default route; `public_ip` is
    what peers are told in place of the interface's address.  Raises UnderlayError where nothing fits, OSError
    where the kernel can't be asked.
    """
    return choose_underlay(await read_host_facts(netlink), iface, public_ip)
