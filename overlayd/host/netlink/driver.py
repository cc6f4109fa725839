"""The kernel of one network namespace as a Driver.

What is ours is told by marks that outlive the daemon: a device's name and kind, what stands on such a device,
and our route protocol number.  Ours are every address, every FDB entry with a destination and every permanent
neighbour on our devices; unicast routes of the main table with our protocol number that leave by them; gateway
routes with our protocol number that leave by an interface of the scope; IPv4 forwarding, where it is on.  Which
devices are ours the drivers declare: VXLAN devices this one, others the datapaths that attach to them.

Adding a route never alters or hides behind a foreign route to the same destination: it is placed before it.
Nothing is remembered between two calls but the devices' indices, and these only to tell noise from news.
"""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import trio

from overlayd.core.host.underlay import HostLink
from overlayd.core.kernel.driver import (
    ALL,
    DevicePattern,
    Driver,
    Failure,
    Keys,
    OnChange,
    Operation,
    Scope,
    Verb,
    is_our_device,
)
from overlayd.core.kernel.items import (
    ROUTE_PROTOCOL,
    Address,
    FdbEntry,
    Forwarding,
    Item,
    KernelState,
    Key,
    Link,
    Neighbour,
    Route,
    TunKind,
    VxlanKind,
)
from overlayd.core.network.addresses import Family, IPAddress, Mac
from overlayd.host.netlink import links, wire
from overlayd.host.netlink.connection import Netlink, open_netlink, open_notifications, tell_changes
from overlayd.host.netlink.dumps import link_index, link_name, read_addresses, read_links, read_route_rows
from overlayd.host.netlink.entries import (
    AF_BRIDGE,
    NUD_PERMANENT,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    NeighbourRow,
    neighbour_index,
    pack_neighbours_query,
    parse_neighbour,
    parse_route,
)
from overlayd.host.netlink.forwarding import forwards, switch_on
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.operations import OperationSteps, operation_steps
from overlayd.host.netlink.wire import Refusal
from overlayd.host.port_owner import find_udp_owner
from overlayd.host.tun import create_tun

_GROUPS = (1, 3, 5, 7, 9, 24)
"""linux/rtnetlink.h, RTNLGRP_: LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV4_NETCONF (forwarding)."""

NONE: Keys = frozenset()
_NOWHERE = IPv4Address(0)
"""Stands for what nothing desired has: an FDB entry's several or special destinations."""


VXLAN_DEVICES = DevicePattern(r"ovl6?\.\d+", VxlanKind.word)
"""`ovl.` and the VNI for IPv4, `ovl6.` for IPv6."""


@asynccontextmanager
async def open_netlink_driver(
    netns: str | None = None, devices: Iterable[DevicePattern] = ()
) -> AsyncGenerator[Driver, None]:
    """Open the kernel of this network namespace, or of another one: a name known to `ip netns`, or a path.

    `devices` are ours on account of other drivers.
    """
    async with open_netlink(netns, (VXLAN_DEVICES, *devices)) as netlink:
        yield _NetlinkDriver(netlink)


class _NetlinkDriver(Driver):
    kinds = frozenset({Forwarding, Link, Address, FdbEntry, Neighbour, Route})
    devices = (VXLAN_DEVICES,)

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._our_names: Mapping[int, str] | None = None
        self._underlay: frozenset[int] = frozenset()
        self._scope = Scope()
        self._fdb_written: dict[Key, IPAddress | None] = {}
        """What was written last: None for what was removed, _NOWHERE for what is not known."""
        self._destinations: set[tuple[bytes, int]] = set()
        """Where routes of ours lead, or have led."""

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        """List only the tables that have any of the keys."""
        nouns = None if keys is ALL else {key[0] for key in keys}

        def is_wanted(kind: type[Item]) -> bool:
            return nouns is None or kind.noun in nouns or kind.within in nouns

        all_links = await read_links(self._netlink)
        ours = {link.index: link for link in all_links if link.ours}
        names = self._our_names = {index: link.name for index, link in ours.items()}
        items: list[Item] = [
            Link(link.name, link.tunnel, link.mac, link.mtu, link.up)
            for link in ours.values()
            if link.tunnel is not None
        ]
        if is_wanted(Forwarding) and await forwards(self._netlink, all_links):
            items.append(Forwarding(Family.IPV4))
        if is_wanted(Address):
            for address in await read_addresses(self._netlink, dict(names)):
                items.append(Address(address.link, address.address, address.prefixlen))
        for index, name in names.items():
            if is_wanted(FdbEntry) and isinstance(ours[index].tunnel, VxlanKind):
                items += _fdb_entries(name, await self._read_neighbours(AF_BRIDGE, index))
            if is_wanted(Neighbour):
                items += _neighbours(name, await self._read_neighbours(0, index))
        underlay = {link.index: link.name for link in all_links if link.name in scope.underlay}
        self._scope, self._underlay = scope, frozenset(underlay)
        if is_wanted(Route):
            items += await self._observe_routes(names, underlay)
        return KernelState.of(items)

    async def _read_neighbours(self, family: int, index: int) -> list[NeighbourRow]:
        try:
            messages = await self._netlink.dump(wire.RTM_GETNEIGH, pack_neighbours_query(family, index))
        except OSError as error:
            if error.errno == errno.ENODEV:  # the device went since its name was read, and they with it
                return []
            raise
        rows = (parse_neighbour(message.body) for message in messages)
        return [row for row in rows if row.ifindex == index]

    async def _observe_routes(self, ours: Mapping[int, str], underlay: Mapping[int, str]) -> list[Item]:
        """Read our routes. One that stands behind another to the same destination is without effect.  It counts as
        absent, so that it is added again, in front."""
        found: list[Item] = []
        seen = set()
        for row in await read_route_rows(self._netlink):
            if row.tos:  # for traffic of one class alone
                continue
            key = (row.destination, row.prefixlen)
            in_effect = key not in seen
            seen.add(key)
            if row.protocol == ROUTE_PROTOCOL:
                self._destinations.add(key)
            if not in_effect or row.protocol != ROUTE_PROTOCOL or row.kind != RTN_UNICAST or not row.plain:
                continue
            name = ours.get(row.ifindex) or (underlay.get(row.ifindex) if row.gateway else None)
            if name is not None:
                gateway = IPv4Address(row.gateway) if row.gateway else None
                destination = IPv4Network((row.destination, row.prefixlen))
                found.append(Route(destination, gateway, name, bool(row.flags & RTNH_F_ONLINK)))
        return found

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        outcomes: list[Failure | None] = [None] * len(operations)
        waiting: dict[int, Operation] = {}  # entries, to be done side by side
        for position, operation in enumerate(operations):
            if isinstance(operation.item, Link | Forwarding):
                await self._apply_entries(waiting, outcomes)
                waiting.clear()
                outcomes[position] = await self._apply_device(operation)
            else:
                waiting[position] = operation
        await self._apply_entries(waiting, outcomes)
        return tuple(outcomes)

    async def _apply_entries(self, operations: Mapping[int, Operation], outcomes: list[Failure | None]) -> None:
        if not operations:
            return
        index_of = {link.name: link.index for link in await read_links(self._netlink)}
        running: dict[int, OperationSteps] = {
            i: operation_steps(operation, index_of) for i, operation in operations.items()
        }
        self._note_written((operation, None) for operation in operations.values())  # before the kernel tells of it
        answers: dict[int, Refusal | None] = dict.fromkeys(running)
        while running:
            requests = {}
            for i, run in list(running.items()):
                try:
                    requests[i] = run.send(answers[i])
                except StopIteration as end:
                    outcomes[i] = _failure(end.value) if end.value else None
                    del running[i]
            answers = dict(zip(requests, await self._netlink.execute(list(requests.values())), strict=True))
        self._note_written((operation, outcomes[i]) for i, operation in operations.items() if outcomes[i])

    async def _apply_device(self, operation: Operation) -> Failure | None:
        found = await read_links(self._netlink)
        if isinstance(operation.item, Forwarding):
            return await self._forward(operation, found)
        assert isinstance(operation.item, Link)
        link = operation.item
        existing = next((other for other in found if other.name == link.name), None)
        if operation.verb is Verb.REMOVE:
            if existing is None or not existing.ours:
                return None
            refused = await self._netlink.execute_one(links.delete_link(existing.index))
            return _failure(refused) if refused and refused.errno != errno.ENODEV else None
        if existing is None:
            if operation.verb is Verb.CHANGE:
                return _failure(Refusal(errno.ENODEV, f"{link.name} is gone"))
            return await self._create(link, {other.name: other.index for other in found})
        if not existing.ours or type(existing.tunnel) is not type(link.kind):
            what = f"a {existing.kind} device" if existing.kind else "another device"
            return Failure(
                errno.EEXIST,
                f"{what} of this name exists, and it is not overlayd's: "
                f"rename it or delete it (ip link delete {link.name})",
            )
        if existing.tunnel != link.kind:
            return Failure(errno.EEXIST, f"it exists as {existing.tunnel} and has to be removed first")
        return await self._set(link, existing)

    async def _create(self, link: Link, index_of: Mapping[str, int]) -> Failure | None:
        if not is_our_device(self._netlink.devices, link.name, link.kind.word):  # the next life would not know it
            return Failure(errno.EINVAL, f"no driver declares {link.kind.word} devices of the name {link.name}")
        if isinstance(link.kind, TunKind):
            refused = create_tun(link.name, self._netlink.netns)
        elif (underlay := index_of.get(link.kind.underlay)) is not None:
            refused = await self._netlink.execute_one(links.create_vxlan(link, underlay))
        else:
            return Failure(
                errno.ENODEV, f"there is no interface {link.kind.underlay!r} for the tunnel to run over"
            )
        if refused:
            return _failure(refused)
        created = next((new for new in await read_links(self._netlink) if new.name == link.name), None)
        if created is None:
            return _failure(Refusal(errno.ENODEV, f"{link.name} was deleted as soon as it was made"))
        return await self._set(link, created)

    async def _set(self, link: Link, existing: HostLink) -> Failure | None:
        """Set only what differs of MAC, MTU and up: setting a MAC, even to the same value, flushes the
        neighbours."""
        refused = await self._netlink.execute_one(links.set_no_generated_addresses(existing.index))
        if refused and refused.errno != errno.EAFNOSUPPORT:
            return _failure(refused)
        in_netns(self._netlink.netns, lambda: _ignore_router_advertisements(link.name))
        refused = await self._netlink.execute_one(
            links.set_link(
                existing.index,
                mac=link.mac if link.mac != existing.mac else None,
                mtu=link.mtu if link.mtu != existing.mtu else None,
                up=link.up if link.up != existing.up else None,
            )
        )
        if refused and refused.errno == errno.EADDRINUSE and isinstance(link.kind, VxlanKind):
            return self._port_taken(refused.errno, link.kind.port)
        return _failure(refused) if refused else None

    def _port_taken(self, number: int, port: int) -> Failure:
        if (owner := in_netns(self._netlink.netns, lambda: find_udp_owner(port))) is not None:
            return Failure(number, f"{owner} has UDP port {port}")
        return Failure(number, f"another socket has UDP port {port}; this shows which: ss -ulnp 'sport = :{port}'")

    async def _forward(self, operation: Operation, found: Sequence[HostLink]) -> Failure | None:
        """Switch forwarding on; removing it leaves it on, as others rely on it."""
        assert isinstance(operation.item, Forwarding)
        if operation.item.family is not Family.IPV4:
            return _failure(Refusal(errno.EOPNOTSUPP, "IPv6 forwarding is not switched yet"))
        if operation.verb is Verb.REMOVE:
            return None
        refused = await switch_on(self._netlink, found)
        if refused is None:
            return None
        setting, why = refused
        reason = _failure(why).reason
        return Failure(why.errno, f"net.ipv4.ip_forward cannot be written here, nor can {setting}: {reason}")

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        async with (
            open_notifications(self._netlink.netns, _GROUPS) as notifications,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(tell_changes, notifications, self._concerned, on_change)
            yield
            nursery.cancel_scope.cancel()

    def _concerned(self, message: wire.Message) -> Keys:
        """Name what a notification is about: nothing of ours, one entry, or, where devices are concerned, all.

        What this driver did itself is no news: its notifications bear the port of its socket.  Those of FDB
        entries don't, and are told by what was written.
        """
        if self._our_names is None:
            return ALL
        match message.kind:
            case wire.RTM_NEWNEIGH | wire.RTM_DELNEIGH:
                name = self._our_names.get(neighbour_index(message.body))
                if name is None or message.port == self._netlink.port:
                    return NONE
                return self._neighbour_keys(name, message)
            case wire.RTM_NEWROUTE | wire.RTM_DELROUTE:
                return NONE if message.port == self._netlink.port else self._route_keys(message)
            case wire.RTM_NEWADDR if message.port == self._netlink.port:
                return NONE
            case wire.RTM_NEWLINK | wire.RTM_DELLINK | wire.RTM_NEWADDR | wire.RTM_DELADDR:
                index = link_index(message.body)
                return ALL if index in self._our_names or self._may_carry(index, message) else NONE
            case wire.RTM_NEWNETCONF | wire.RTM_DELNETCONF:
                return frozenset({Forwarding(Family.IPV4).key})
        return ALL

    def _may_carry(self, index: int, message: wire.Message) -> bool:
        """Tell whether the link is the underlay's, whose routes may go without a word, or new and perhaps ours."""
        if index in self._underlay:
            return True
        if message.kind != wire.RTM_NEWLINK:
            return False
        name = link_name(message)
        return name in self._scope.underlay or any(re.fullmatch(each.name, name) for each in self._netlink.devices)

    def _neighbour_keys(self, link: str, message: wire.Message) -> Keys:
        row = parse_neighbour(message.body)
        if row.family != AF_BRIDGE:
            return frozenset({("neighbour", link, row.destination)})
        key = ("fdb", link, row.mac)
        told = row.destination if message.kind == wire.RTM_NEWNEIGH else None
        return NONE if self._fdb_written.get(key, _NOWHERE) == told else frozenset({key})

    def _route_keys(self, message: wire.Message) -> Keys:
        """Name the route to this destination, if it is ours or stands where one of ours does."""
        if message.body[0] != Family.IPV4:
            return NONE
        row = parse_route(message.body)
        destination = (row.destination, row.prefixlen)
        if row.protocol != ROUTE_PROTOCOL and destination not in self._destinations:
            return NONE
        return frozenset({("route", IPv4Network(destination))})

    def _note_written(self, operations: Iterable[tuple[Operation, Failure | None]]) -> None:
        for operation, failure in operations:
            item, gone = operation.item, operation.verb is Verb.REMOVE
            if isinstance(item, FdbEntry):
                self._fdb_written[item.key] = _NOWHERE if failure else None if gone else item.destination
            elif isinstance(item, Route):
                network = item.destination
                self._destinations.add((network.network_address.packed, network.prefixlen))


def _fdb_entries(link: str, rows: Sequence[NeighbourRow]) -> list[Item]:
    destinations: dict[Mac, IPAddress] = {}
    for row in rows:
        if not row.is_static or row.mac is None:
            continue
        if row.special or row.mac in destinations:
            destinations[row.mac] = _NOWHERE
        elif row.destination is not None:
            destinations[row.mac] = row.destination
    return [FdbEntry(link, mac, destination) for mac, destination in destinations.items()]


def _neighbours(link: str, rows: Sequence[NeighbourRow]) -> list[Item]:
    return [
        Neighbour(link, row.destination, row.mac)
        for row in rows
        if row.state & NUD_PERMANENT and row.destination is not None and row.mac is not None
    ]


def _ignore_router_advertisements(name: str) -> None:
    """Ignore router advertisements: the overlay has no router.  Nothing depends on it where it can't be set."""
    setting = Path("/proc/sys/net/ipv6/conf", name, "accept_ra")
    try:
        setting.write_text("0\n")
    except OSError:
        return


def _failure(refused: Refusal) -> Failure:
    if refused.errno == errno.EPERM:
        return Failure(refused.errno, f"{refused}: overlayd needs the capability CAP_NET_ADMIN")
    return Failure(refused.errno, str(refused))
