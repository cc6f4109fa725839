"""Asking the kernel by which way it would send to an address: what `ip route get` shows.

Unlike a look at the main table this respects policy rules and whatever else decides.  Nothing is sent.
Source: struct rtmsg and its attributes in linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import struct
from ipaddress import IPv4Address

from overlayd.core.host.underlay import RouteLookup
from overlayd.core.network.addresses import Family
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.entries import RTA_DST, RTA_OIF
from overlayd.host.netlink.wire import Request, attribute, attributes

_RTMSG = struct.Struct("=BBBBBBBBI")
_INDEX = struct.Struct("=i")
_RTA_PREFSRC = 7

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}
"""No route; routes of the types unreachable, prohibit and blackhole (fib_props in net/ipv4/fib_semantics.c)."""


async def find_route_lookup(netlink: Netlink, target: IPv4Address, names: dict[int, str]) -> RouteLookup | None:
    """Find the way to `target`, None if no route leads there.  `names` are those of the links, by index.

    Raises OSError where the kernel can't be asked.
    """
    body = _RTMSG.pack(Family.IPV4, target.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, target.packed)
    try:
        answer = await netlink.ask(Request(wire.RTM_GETROUTE, 0, body))
    except OSError as error:
        if error.errno in _NO_WAY:
            return None
        raise
    found = attributes(answer.body, _RTMSG.size)
    link = names.get(_INDEX.unpack(found[RTA_OIF])[0]) if RTA_OIF in found else None
    source = IPv4Address(bytes(found[_RTA_PREFSRC])) if _RTA_PREFSRC in found else None
    return None if link is None else RouteLookup(link, source)
