"""Reading one HostSnapshot: what stands in the kernel's tables, what others' firewalls do, what was dropped for
us.

A table is read again only where a notification said that something in it changed that matters; what does not
matter (`core.host.interest`) is neither kept nor read again.  So pods that start, and routes of others that
flap, cost a glance at a message.  Every so often all is read again, whatever the notifications said.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import trio

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.host.interest import Interest
from overlayd.core.host.snapshot import HostQuestion, HostSnapshot
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.host.underlay import HostFacts, InterfaceSelector, Reaching, RouteLookup
from overlayd.core.kernel.items import ROUTE_PROTOCOL
from overlayd.core.network.addresses import Family, IPAddress
from overlayd.core.status.problem import Problem
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import Netlink, open_notifications
from overlayd.host.netlink.dumps import (
    link_index,
    link_name,
    parse_address,
    read_addresses,
    read_links,
    read_routes,
)
from overlayd.host.netlink.entries import parse_route
from overlayd.host.netlink.route_get import find_route_lookup
from overlayd.host.preflight import probe
from overlayd.host.stale_addresses import read_used_addresses

ALL_EVERY = 30.0
"""Seconds after which all is read again."""
_GROUPS = (1, 5, 7, 9)
"""linux/rtnetlink.h, RTNLGRP_: LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR."""


class HostReader:
    """A HostProbe over this host's kernel.

    `read_drops` tells how many packets the kernel's filter has dropped for us, by reason, and
    `look_at_firewalls` who else has a firewall here; both raise OSError.
    """

    def __init__(
        self,
        netlink: Netlink,
        selector: InterfaceSelector,
        read_drops: Callable[[], Mapping[str, int]],
        look_at_firewalls: Callable[[], Awaitable[ForeignFirewalls]],
    ) -> None:
        self._netlink = netlink
        self._selector = selector
        self._read_drops = read_drops
        self._look_at_firewalls = look_at_firewalls
        self._facts: HostFacts | None = None
        """None where something in it changed that matters."""
        self._used: tuple[UsedAddress, ...] = ()
        self._names: dict[int, str] = {}
        self._interest = Interest()
        self._read_at = float("-inf")
        self._last = HostSnapshot()

    async def look(self, question: HostQuestion) -> HostSnapshot:
        """Read the host; where that fails, return the last snapshot again, with the reason."""
        try:
            self._last = await self._look(question)
        except OSError as error:
            self._facts = None
            return HostSnapshot(
                facts=self._last.facts,
                firewalls=self._last.firewalls,
                drops=self._last.drops,
                unreadable=f"the kernel can't be asked: {error}",
            )
        return self._last

    async def _look(self, question: HostQuestion) -> HostSnapshot:
        facts = await self._read_facts(question.interest, is_probing=question.requirements is not None)
        problems: list[Problem] = []
        drops: Mapping[str, int] = {}
        try:
            drops = self._read_drops()
        except OSError as error:
            problems.append(Problem("kernel-silent", f"nf_tables can't be asked: {error}"))
        return HostSnapshot(
            facts,
            await self._find_lookup(),
            await probe(self._netlink, facts, question),
            self._used,
            await self._look_at_firewalls(),
            drops,
            {target: why for target in question.targets if (why := await self._why_unreachable(target))},
            tuple(problems),
        )

    async def _read_facts(self, interest: Interest, *, is_probing: bool) -> HostFacts:
        """Read the tables, unless nothing that matters has changed; what is equal stays the same object."""
        now = trio.current_time()
        # the routes to new peers come with the next reading; until then the kernel is asked about them
        same = replace(interest, peers=()) == replace(self._interest, peers=())
        self._interest = interest
        if self._facts is not None and same and not is_probing and now - self._read_at < ALL_EVERY:
            return self._facts
        self._read_at = now
        links = await read_links(self._netlink)
        self._names = {link.index: link.name for link in links}
        ours = frozenset(link.name for link in links if link.ours)
        addresses = await read_addresses(self._netlink, self._names)
        routes = await read_routes(self._netlink, self._names, interest, ours)
        self._used = await read_used_addresses(self._netlink, links, addresses)
        found = HostFacts(links, addresses, routes)
        self._facts = self._last.facts if found == self._last.facts else found
        return self._facts

    async def _find_lookup(self) -> RouteLookup | None:
        if not isinstance(self._selector, Reaching):
            return None
        return await find_route_lookup(self._netlink, self._selector.address, self._names)

    async def _why_unreachable(self, target: IPAddress) -> str:
        """Say why the kernel sends nothing to this address, "" if it does."""
        if not isinstance(target, IPv4Address):
            return ""
        lookup = await find_route_lookup(self._netlink, target, self._names)
        return "" if lookup is not None else "no route leads there"

    @asynccontextmanager
    async def watch(self, on_change: Callable[[], None]) -> AsyncGenerator[None, None]:
        async with (
            open_notifications(self._netlink.netns, _GROUPS) as notifications,
            trio.open_nursery() as nursery,
        ):

            async def listen() -> None:
                while True:
                    messages = await notifications.receive()
                    if messages is None or any(map(self._matters, messages)):
                        self._facts = None
                        on_change()

            nursery.start_soon(listen)
            yield
            nursery.cancel_scope.cancel()

    def _matters(self, message: wire.Message) -> bool:
        """Tell whether a notification is about something of interest."""
        interest, body = self._interest, message.body
        match message.kind:
            case wire.RTM_NEWROUTE | wire.RTM_DELROUTE:
                row = parse_route(body)
                if row.protocol == ROUTE_PROTOCOL or body[0] != Family.IPV4:
                    return False
                link, first = self._names.get(row.ifindex, ""), int.from_bytes(row.destination)
                return interest.in_route(4, first, row.prefixlen, link, direct=row.gateway is None)
            case wire.RTM_NEWADDR | wire.RTM_DELADDR:
                address = parse_address(message, self._names)
                if address is None:
                    return interest.everything
                return interest.in_address(address.address.version, int(address.address), address.link)
            case wire.RTM_NEWLINK | wire.RTM_DELLINK:
                name = self._names[link_index(body)] = link_name(message)
                return interest.everything or name in interest.links
        return False
