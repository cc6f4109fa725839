"""The fake kernel's routing tables, with the same consequences as the real ones.

It does what the kernel does behind a daemon's back: a link that goes down takes its routes and neighbours with it
and leaves addresses and FDB entries; a new MAC flushes the neighbours; a device's last address takes the routes; a
deleted device takes everything.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from overlayd.core.kernel.driver import DevicePattern, Failure, Operation, Scope, Verb, is_our_device
from overlayd.core.kernel.items import (
    ROUTE_PROTOCOL,
    Address,
    FdbEntry,
    Forwarding,
    Item,
    Link,
    Neighbour,
    Route,
    TunKind,
    VxlanKind,
)
from overlayd.core.network.addresses import Family, IPAddress, IPNetwork, Mac
from overlayd.host.netlink.driver import VXLAN_DEVICES

KINDS: frozenset[type[Item]] = frozenset({Forwarding, Link, Address, FdbEntry, Neighbour, Route})


@dataclass(frozen=True)
class ForeignLink:
    """A device of a kind that overlayd never makes; `kind` as `ip -d link` names it, "" for a physical one."""

    name: str
    mtu: int = 1500
    up: bool = True
    kind: str = ""


@dataclass(frozen=True)
class ForeignRoute:
    """A route as the table has it, whoever's; `gateway` None for a connected one."""

    destination: IPNetwork
    link: str
    gateway: IPAddress | None = None
    protocol: int = 4
    onlink: bool = False


@dataclass(eq=False)
class FakeNetlink:
    """The state is open to look at.  `devices` are those that are ours: any TUN device, as if for every name after
    `ovl.` there were a driver."""

    links: dict[str, Link | ForeignLink] = field(default_factory=dict)
    addresses: set[Address] = field(default_factory=set)
    fdb: dict[tuple[str, Mac], FdbEntry] = field(default_factory=dict)
    neighbours: dict[tuple[str, IPAddress], Neighbour] = field(default_factory=dict)
    routes: dict[IPNetwork, list[ForeignRoute]] = field(default_factory=dict)
    forwarding: bool = False
    devices: tuple[DevicePattern, ...] = (VXLAN_DEVICES, DevicePattern(r"ovl\.[a-z].*", TunKind.word))

    def netlink_items(self, scope: Scope) -> Iterator[Item]:
        """Yield the items that are ours; of the routes to one destination the first counts."""
        ours = {name for name in self.links if self._is_ours(name)}
        yield from (link for link in self.links.values() if isinstance(link, Link) and link.name in ours)
        if self.forwarding:
            yield Forwarding(Family.IPV4)
        yield from (address for address in self.addresses if address.link in ours)
        yield from (entry for entry in self.fdb.values() if entry.link in ours)
        yield from (neighbour for neighbour in self.neighbours.values() if neighbour.link in ours)
        for first, *_ in self.routes.values():
            in_scope = first.gateway is not None and first.link in scope.underlay
            if first.protocol == ROUTE_PROTOCOL and (first.link in ours or in_scope):
                yield Route(first.destination, first.gateway, first.link, first.onlink)

    def _is_ours(self, name: str) -> bool:
        link = self.links.get(name)
        return isinstance(link, Link) and is_our_device(self.devices, name, link.kind.word)

    def _put_netlink(self, operation: Operation) -> Failure | None:
        match operation.item:
            case Forwarding():
                self.forwarding = True
            case Link() as link:
                return self._put_link(link, operation.verb)
            case Route() as route:
                return self._put_route(route, operation.was)
            case Address() | FdbEntry() | Neighbour() as entry:
                return self._put_entry(entry)
        return None

    def _put_link(self, link: Link, verb: Verb) -> Failure | None:
        existing = self.links.get(link.name)
        if existing is None:
            if verb is Verb.CHANGE:
                return Failure(errno.ENODEV, f"{link.name} is gone")
            if not is_our_device(self.devices, link.name, link.kind.word):
                reason = f"no driver declares {link.kind.word} devices of the name {link.name}"
                return Failure(errno.EINVAL, reason)
            if isinstance(link.kind, VxlanKind) and link.kind.underlay not in self.links:
                return Failure(errno.ENODEV, f"there is no interface {link.kind.underlay!r}")
            self.links[link.name] = link
            return None
        if isinstance(existing, ForeignLink):
            return Failure(errno.EEXIST, "another device of this name exists, and it is not overlayd's")
        if existing.kind != link.kind:
            return Failure(errno.EEXIST, f"it exists as {existing.kind} and has to be removed first")
        self._set_link(link.name, up=link.up, mac=link.mac, mtu=link.mtu)
        return None

    def _put_route(self, route: Route, was: Item | None) -> Failure | None:
        if (link := self.links.get(route.link)) is None:
            return _no_link(route.link)
        if not link.up:
            return Failure(errno.ENETDOWN, "Device for nexthop is not up")
        if isinstance(was, Route):
            self._remove_route(was)
        self._remove_route(route)
        ours = ForeignRoute(route.destination, route.link, route.gateway, ROUTE_PROTOCOL, route.onlink)
        self.routes.setdefault(route.destination, []).insert(0, ours)
        return None

    def _put_entry(self, entry: Address | FdbEntry | Neighbour) -> Failure | None:
        if entry.link not in self.links:
            return _no_link(entry.link)
        match entry:
            case Address():
                self.addresses.add(entry)
            case FdbEntry():
                self.fdb[entry.link, entry.mac] = entry
            case Neighbour():
                self.neighbours[entry.link, entry.address] = entry
        return None

    def _remove_netlink(self, item: Item) -> None:
        """Remove an item; forwarding stays on, as others rely on it."""
        match item:
            case Link():
                if self._is_ours(item.name):
                    self._delete_link(item.name)
            case Address():
                self.addresses.discard(item)
                if not any(address.link == item.link for address in self.addresses):
                    self._drop_routes(item.link)
                    self._drop_neighbours(item.link)
            case FdbEntry():
                self.fdb.pop((item.link, item.mac), None)
            case Neighbour():
                self.neighbours.pop((item.link, item.address), None)
            case Route():
                self._remove_route(item)

    def _remove_route(self, route: Route) -> None:
        """Remove our first route by this link and gateway, or, where none is given, by any."""
        routes = self.routes.get(route.destination, [])
        for position, other in enumerate(routes):
            same = other.link == route.link and route.gateway in (other.gateway, None)
            if same and other.protocol == ROUTE_PROTOCOL:
                del routes[position]
                break
        if not routes:
            self.routes.pop(route.destination, None)

    def _set_link(self, name: str, *, up: bool | None, mac: Mac | None, mtu: int | None) -> None:
        before = self.links[name]
        after = replace(before, up=before.up if up is None else up, mtu=mtu or before.mtu)
        if isinstance(after, Link) and mac:
            after = replace(after, mac=mac)
        self.links[name] = after
        if before.up and not after.up:
            self._drop_routes(name)
            self._drop_neighbours(name)
        elif isinstance(before, Link) and mac not in (None, before.mac):
            self._drop_neighbours(name)

    def _delete_link(self, name: str) -> None:
        """Delete a link with those that run over it."""
        self.links.pop(name, None)
        self._drop_routes(name)
        self._drop_neighbours(name)
        self.addresses = {address for address in self.addresses if address.link != name}
        self.fdb = {key: entry for key, entry in self.fdb.items() if entry.link != name}
        above = [
            link.name
            for link in self.links.values()
            if isinstance(link, Link) and isinstance(link.kind, VxlanKind) and link.kind.underlay == name
        ]
        for tunnel in above:
            self._delete_link(tunnel)

    def _drop_routes(self, name: str) -> None:
        left = {to: [route for route in routes if route.link != name] for to, routes in self.routes.items()}
        self.routes = {to: routes for to, routes in left.items() if routes}

    def _drop_neighbours(self, name: str) -> None:
        self.neighbours = {key: entry for key, entry in self.neighbours.items() if entry.link != name}


def _no_link(name: str) -> Failure:
    return Failure(errno.ENODEV, f"no interface {name}")
