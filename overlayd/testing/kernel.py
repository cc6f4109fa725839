"""A kernel in memory: the same Driver, with the same consequences, for tests that need no root.

It passes the contract tests of the real one, and does what the kernel does behind a daemon's back: a link that
goes down takes its routes and neighbours with it and leaves addresses and FDB entries; a new MAC flushes the
neighbours; a device's last address takes the routes; a deleted device takes everything.  A userspace datapath
stands among the rest, as in `core.kernel`, and its entries go with it.  A test plays the rest of the world by
the methods under "the outside", and makes the kernel refuse by `fail_next`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from overlayd.core.firewall.iptables import ForwardRules, Variant
from overlayd.core.firewall.nftables import NftChain, NftItem, NftTable, Sender
from overlayd.core.host.underlay import is_our_device
from overlayd.core.kernel.driver import Failure, Hints, Operation, Scope, Verb
from overlayd.core.kernel.items import (
    ROUTE_PROTOCOL,
    Address,
    Datapath,
    Encap,
    FdbEntry,
    Forwarding,
    Item,
    KernelState,
    Link,
    Neighbour,
    Route,
    VxlanKind,
)
from overlayd.core.network.addresses import Family, IPAddress, IPNetwork, Mac
from overlayd.testing.nft import FakeNft


@dataclass(frozen=True)
class ForeignLink:
    """A device of a kind that overlayd never makes."""

    name: str
    mtu: int = 1500
    up: bool = True


@dataclass(frozen=True)
class ForeignRoute:
    """A route as the table has it, whoever's; `gateway` None for a connected one."""

    destination: IPNetwork
    link: str
    gateway: IPAddress | None = None
    protocol: int = 4
    onlink: bool = False


@dataclass(eq=False)
class FakeKernel:
    """The state is open to look at; `applied` is every operation tried, in order, with its outcome."""

    links: dict[str, Link | ForeignLink] = field(default_factory=dict)
    addresses: set[Address] = field(default_factory=set)
    fdb: dict[tuple[str, Mac], FdbEntry] = field(default_factory=dict)
    neighbours: dict[tuple[str, IPAddress], Neighbour] = field(default_factory=dict)
    routes: dict[IPNetwork, list[ForeignRoute]] = field(default_factory=dict)
    datapaths: dict[str, Datapath] = field(default_factory=dict)
    encaps: dict[tuple[str, IPNetwork], Encap] = field(default_factory=dict)
    nft: FakeNft = field(default_factory=FakeNft)
    forward_rules: dict[Variant, ForwardRules] = field(default_factory=dict)
    forwarding: bool = False
    applied: list[tuple[Operation, Failure | None]] = field(default_factory=list)
    _refusals: list[tuple[Callable[[Operation], bool], Failure]] = field(default_factory=list)
    _listeners: list[_FakeHints] = field(default_factory=list)
    _observed: dict[Scope, KernelState] = field(default_factory=dict)
    """What was seen since the last change."""

    # --- the Driver

    async def observe(self, scope: Scope) -> KernelState:
        await trio.lowlevel.checkpoint()
        if scope not in self._observed:
            self._observed[scope] = self._state(scope)
        return self._observed[scope]

    def _state(self, scope: Scope) -> KernelState:
        ours = {name for name, link in self.links.items() if self._is_ours(name)}
        items: list[Item] = [link for link in self.links.values() if isinstance(link, Link) and link.name in ours]
        if self.forwarding:
            items.append(Forwarding(Family.IPV4))
        items += [address for address in self.addresses if address.link in ours]
        items += [entry for entry in self.fdb.values() if entry.link in ours]
        items += [neighbour for neighbour in self.neighbours.values() if neighbour.link in ours]
        items += [*self.datapaths.values(), *self.encaps.values(), *self.nft.items]
        items += self.forward_rules.values()
        for first, *_ in self.routes.values():
            in_scope = first.gateway is not None and first.link in scope.underlay
            if first.protocol == ROUTE_PROTOCOL and (first.link in ours or in_scope):
                items.append(Route(first.destination, first.gateway, first.link, first.onlink))
        return KernelState.of(items)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        await trio.lowlevel.checkpoint()
        outcomes = tuple(map(self._apply_one, operations))
        self.applied += zip(operations, outcomes, strict=True)
        self._changed()
        return outcomes

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[Hints, None]:
        hints = _FakeHints()
        self._listeners.append(hints)
        try:
            yield hints
        finally:
            self._listeners.remove(hints)

    # --- the outside

    def fail_next(
        self, matches: Callable[[Operation], bool], number: int = errno.ENOBUFS, reason: str = "", times: int = 1
    ) -> None:
        """Refuse the next `times` operations that match, with this errno value."""
        self._refusals += [(matches, Failure(number, reason or os.strerror(number)))] * times

    def add_link(self, link: Link | ForeignLink) -> None:
        self.links[link.name] = link
        self._changed()

    def delete_link(self, name: str) -> None:
        """Delete a device, and those that run over it."""
        self._delete_link(name)
        self._changed()

    def set_link(
        self, name: str, *, up: bool | None = None, mac: Mac | None = None, mtu: int | None = None
    ) -> None:
        self._set_link(name, up=up, mac=mac, mtu=mtu)
        self._changed()

    def put(self, item: Address | Encap | FdbEntry | Neighbour) -> None:
        """Put an entry in place, over what stands there."""
        self._put(item)
        self._changed()

    def delete(self, item: Item) -> None:
        """Delete what has this item's key, as an operator would by hand; of routes the first of ours."""
        refused = self._remove(item)
        assert refused is None, refused
        self._changed()

    def add_route(self, route: ForeignRoute, *, in_front: bool = True) -> None:
        routes = self.routes.setdefault(route.destination, [])
        routes.insert(0 if in_front else len(routes), route)
        self._changed()

    def put_nft(self, item: NftItem) -> None:
        """Put it into our table, as an operator would by hand."""
        refused = self.nft.put(item)
        assert refused is None, refused
        self._changed()

    def flush_nft(self) -> None:
        """What the reload of a firewall does."""
        self.nft.flush()
        self._changed()

    def hint(self) -> None:
        """Let everyone who listens believe that something has changed."""
        self._changed()

    # --- the kernel's rules

    def _is_ours(self, name: str) -> bool:
        link = self.links.get(name)
        return isinstance(link, Link) and is_our_device(name, link.kind)

    def _apply_one(self, operation: Operation) -> Failure | None:
        for position, (matches, failure) in enumerate(self._refusals):
            if matches(operation):
                del self._refusals[position]
                return failure
        if operation.verb is Verb.REMOVE:
            return self._remove(operation.item)
        match operation.item:
            case Forwarding():
                self.forwarding = True
                return None
            case Link() as link:
                return self._apply_link(link, operation.verb)
            case Route() as route:
                return self._apply_route(route, operation.was)
            case NftTable() | NftChain() | Sender() as item:
                return self.nft.put(item)
            case ForwardRules() as rules:
                self.forward_rules[rules.variant] = rules
                return None
            case item:
                return self._put(item)

    def _apply_link(self, link: Link, verb: Verb) -> Failure | None:
        existing = self.links.get(link.name)
        if existing is None:
            if verb is Verb.CHANGE:
                return Failure(errno.ENODEV, f"{link.name} is gone")
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

    def _apply_route(self, route: Route, was: Item | None) -> Failure | None:
        if (link := self.links.get(route.link)) is None:
            return _no_link(route.link)
        if not link.up:
            return Failure(errno.ENETDOWN, "Device for nexthop is not up")
        if isinstance(was, Route):
            self._remove(was)
        self._remove(route)
        ours = ForeignRoute(route.destination, route.link, route.gateway, ROUTE_PROTOCOL, route.onlink)
        self.routes.setdefault(route.destination, []).insert(0, ours)
        return None

    def _put(self, item: Address | Datapath | Encap | FdbEntry | Neighbour) -> Failure | None:
        if item.link not in self.links:
            return _no_link(item.link)
        if isinstance(item, Encap) and item.link not in self.datapaths:
            return Failure(errno.ENOTCONN, f"no datapath runs on {item.link}")
        if isinstance(item, Datapath | Encap) and (overlap := self._find_overlap(item)):
            return Failure(errno.EINVAL, overlap)
        match item:
            case Address():
                self.addresses.add(item)
            case FdbEntry():
                self.fdb[item.link, item.mac] = item
            case Neighbour():
                self.neighbours[item.link, item.address] = item
            case Datapath():
                self.datapaths[item.link] = item
            case Encap():
                self.encaps[item.link, item.prefix] = item
        return None

    def _remove(self, item: Item) -> Failure | None:
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
            case Datapath():
                self._stop_datapath(item.link)
            case Encap():
                self.encaps.pop((item.link, item.prefix), None)
            case Route():
                self._remove_route(item)
            case NftTable() | NftChain() | Sender():
                self.nft.remove(item)
            case ForwardRules():
                self.forward_rules.pop(item.variant, None)
            case Forwarding():
                pass  # it stays on: others rely on it
        return None

    def _remove_route(self, route: Route) -> None:
        """The first of ours by this link and gateway, or, where none is given, by any."""
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
        self.links.pop(name, None)
        self._drop_routes(name)
        self._drop_neighbours(name)
        self.addresses = {address for address in self.addresses if address.link != name}
        self.fdb = {key: entry for key, entry in self.fdb.items() if entry.link != name}
        self._stop_datapath(name)
        above = [
            link.name
            for link in self.links.values()
            if isinstance(link, Link) and isinstance(link.kind, VxlanKind) and link.kind.underlay == name
        ]
        for tunnel in above:
            self._delete_link(tunnel)

    def _find_overlap(self, item: Datapath | Encap) -> str | None:
        """What in the table of its datapath keeps this item out of it."""
        prefixes = item.own if isinstance(item, Datapath) else (item.prefix,)
        others = [
            entry.prefix for entry in self.encaps.values() if entry.link == item.link and entry.key != item.key
        ]
        if isinstance(item, Encap):
            others += self.datapaths[item.link].own
        for prefix in prefixes:
            for other in others:
                if prefix.version == other.version and prefix.overlaps(other):
                    return f"{prefix} and {other} overlap: an address would have two places"
        return None

    def _stop_datapath(self, name: str) -> None:
        self.datapaths.pop(name, None)
        self.encaps = {key: entry for key, entry in self.encaps.items() if entry.link != name}

    def _drop_routes(self, name: str) -> None:
        left = {to: [route for route in routes if route.link != name] for to, routes in self.routes.items()}
        self.routes = {to: routes for to, routes in left.items() if routes}

    def _drop_neighbours(self, name: str) -> None:
        self.neighbours = {key: entry for key, entry in self.neighbours.items() if entry.link != name}

    def _changed(self) -> None:
        self._observed.clear()
        for hints in self._listeners:
            hints.changed.set()


class _FakeHints:
    def __init__(self) -> None:
        self.changed = trio.Event()

    async def wait(self) -> None:
        await self.changed.wait()
        self.changed = trio.Event()


def _no_link(name: str) -> Failure:
    return Failure(errno.ENODEV, f"no interface {name}")
