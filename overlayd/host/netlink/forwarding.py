"""Whether this host forwards IPv4 packets, and switching that on.

The kernel asks the interface that a packet came in by.  net.ipv4.ip_forward sets all of them at once, and those
to come; where /proc/sys can't be written (a container), each interface can still be set by itself.  Sources:
linux/netconf.h, linux/ip.h (IPV4_DEVCONF_*), linux/if_link.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from overlayd.core.host.underlay import HostLink
from overlayd.core.network.addresses import Family
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.wire import Refusal, Request, attribute, attributes

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
"""Of the network namespace of the thread that opens it."""

_NETCONFMSG = struct.Struct("=B3x")
_NETCONFA_IFINDEX = 1
_NETCONFA_IFINDEX_ALL = -1
_NETCONFA_FORWARDING = 2
_IFINFOMSG = struct.Struct("=BxHiII")
_IFLA_AF_SPEC = 26
_IFLA_INET_CONF = 1
_IPV4_DEVCONF_FORWARDING = 1
_INT = struct.Struct("=i")


async def forwards(netlink: Netlink, links: Iterable[HostLink]) -> bool:
    """Tell whether the switch is on, or every interface but loopback forwards."""
    states = {}
    for message in await netlink.dump(wire.RTM_GETNETCONF, _NETCONFMSG.pack(Family.IPV4)):
        found = attributes(message.body, _NETCONFMSG.size)
        if _NETCONFA_FORWARDING in found:
            (index,) = _INT.unpack(found[_NETCONFA_IFINDEX])
            states[index] = found[_NETCONFA_FORWARDING] != _INT.pack(0)
    others = [link.index for link in links if not link.loopback]
    return states.get(_NETCONFA_IFINDEX_ALL, False) or (
        # an interface without a state takes no part in IPv4
        bool(others) and all(states.get(index, True) for index in others)
    )


async def switch_on(netlink: Netlink, links: Iterable[HostLink]) -> tuple[str, Refusal] | None:
    """Forward from now on.  None, or what could not be set (a name for the operator) and why."""
    try:
        in_netns(netlink.netns, lambda: SWITCH.write_text("1\n"))
    except OSError:  # then by the other way, which says for itself what is wrong
        others = [link for link in links if not link.loopback]
        outcomes = await netlink.execute([_set_forwarding(link.index) for link in others])
        for link, refused in zip(others, outcomes, strict=True):
            if refused:
                return f"net.ipv4.conf.{link.name}.forwarding", refused
    return None


def _set_forwarding(index: int) -> Request:
    setting = attribute(_IPV4_DEVCONF_FORWARDING, _INT.pack(1))
    spec = attribute(_IFLA_AF_SPEC, attribute(Family.IPV4, attribute(_IFLA_INET_CONF, setting)))
    return Request(wire.RTM_SETLINK, 0, _IFINFOMSG.pack(0, 0, index, 0, 0) + spec)
