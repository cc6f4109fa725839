"""Probing the host for what `core.host.preflight` judges, without leaving a trace."""

from __future__ import annotations

import errno
import os
import socket

from overlayd.core.host.preflight import HostFindings
from overlayd.core.host.snapshot import HostQuestion
from overlayd.core.host.underlay import HostFacts
from overlayd.host.netlink import forwarding, links
from overlayd.host.netlink.connection import Netlink
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.wire import Request
from overlayd.host.port_owner import find_udp_owner, is_udp_port_our_own
from overlayd.host.tun import find_tun_trouble


async def probe(netlink: Netlink, host: HostFacts, question: HostQuestion) -> HostFindings | None:
    """Find out whether this host has what a network config requires; None where nothing is asked.

    Nothing is changed by asking.  Raises OSError where the kernel can't be asked.
    """
    needed, underlay = question.requirements, question.underlay
    if needed is None or underlay is None:
        return None
    privileged = await _refused_with(netlink, links.ask_for_nothing()) != errno.EPERM
    has_vxlan = (
        needed.vni is None or await _refused_with(netlink, links.ask_for_half_a_vxlan()) != errno.EOPNOTSUPP
    )
    address = str(underlay.address) if needed.tun else "0.0.0.0"  # as the datapath binds, or a vxlan device
    port_free = in_netns(netlink.netns, lambda: _is_free(needed.port, address))
    return HostFindings(
        privileged=privileged,
        has_vxlan=has_vxlan,
        tun_trouble=find_tun_trouble() if needed.tun else "",
        port_free=port_free,
        port_owner="" if port_free else in_netns(netlink.netns, lambda: _owner(needed.port)),
        forwards=await forwarding.forwards(netlink, host.links),
        # with the privilege there is always the way by each interface
        can_forward=privileged or in_netns(netlink.netns, lambda: os.access(forwarding.SWITCH, os.W_OK)),
    )


async def _refused_with(netlink: Netlink, request: Request) -> int:
    refused = await netlink.execute_one(request)
    return refused.errno if refused else 0


def _is_free(port: int | None, address: str) -> bool:
    """Tell whether the port, if any, can be bound on this address."""
    if port is None:
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return is_udp_port_our_own(port)  # a datapath that runs already
            if error.errno == errno.EACCES:  # a low port, and no right to it: the kernel itself needs none
                return True
            raise
    return True


def _owner(port: int | None) -> str:
    return "" if port is None else find_udp_owner(port) or ""
