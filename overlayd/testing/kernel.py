"""A kernel in memory: the same Driver, with the same consequences, for tests that need no root.

It passes the contract tests of the real drivers.  Routing tables and nft have rules of their own
(`testing.netlink`, `testing.nft`).  All other kinds of items are kept by what their types say of themselves, so a
third party's can be among them: an item is refused while what it needs of them is missing, or another stands in
its way, and goes with what it needs.

A test plays the rest of the world by the methods under "the outside", makes the kernel refuse by `fail_next`, and
makes it slow by `latency`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from overlayd.core.firewall.iptables import ForwardRules
from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.driver import (
    ALL,
    Driver,
    Failure,
    Keys,
    OnChange,
    Operation,
    Scope,
    Verb,
    Watchers,
    is_named,
)
from overlayd.core.kernel.items import Item, KernelState, Key, Link
from overlayd.core.network.addresses import Mac
from overlayd.testing import netlink, nft
from overlayd.testing.netlink import FakeNetlink, ForeignLink, ForeignRoute
from overlayd.testing.nft import FakeNft

__all__ = ["BESIDE", "FakeKernel", "ForeignLink", "ForeignRoute"]

BESIDE: frozenset[type[Item]] = frozenset({ForwardRules, Datapath, Encap})
"""The kinds that have no rules of their own here."""
Kind = TypeVar("Kind", bound=Item)


@dataclass(eq=False)
class FakeKernel(FakeNetlink, Driver):
    """`applied` is every operation tried, in order, with its outcome.

    `beside` are the kinds of items beside those of the routing tables and nft.  Each call takes `latency` seconds,
    and happens when half of them are over.
    """

    nft: FakeNft = field(default_factory=FakeNft)
    beside: frozenset[type[Item]] = BESIDE
    latency: float = 0.0
    applied: list[tuple[Operation, Failure | None]] = field(default_factory=list)
    _items: dict[Key, Item] = field(default_factory=dict)
    """Those beside."""
    _refusals: list[tuple[Callable[[Operation], bool], Failure]] = field(default_factory=list)
    _watchers: Watchers = field(default_factory=Watchers)
    _observed: dict[Scope, KernelState] = field(default_factory=dict)
    """What was seen since the last change."""

    def __post_init__(self) -> None:
        self.kinds = netlink.KINDS | nft.KINDS | self.beside

    # --- the Driver

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        await trio.sleep(self.latency / 2)
        if scope not in self._observed:
            found = [*self.netlink_items(scope), *self.nft.items, *self._items.values()]
            self._observed[scope] = KernelState.of(found)
        state = self._observed[scope]
        if self.latency:
            await trio.sleep(self.latency / 2)
        return state if keys is ALL else KernelState.of(item for item in state.items if is_named(keys, item))

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        await trio.sleep(self.latency / 2)
        outcomes = tuple(map(self._apply_one, operations))
        self.applied += zip(operations, outcomes, strict=True)
        # what goes may take along what stands beside it on the same device
        keys = {key for each in operations for key in (each.item.key, each.item.container) if key is not None}
        self._changed(frozenset(keys))
        if self.latency:
            await trio.sleep(self.latency / 2)
        return outcomes

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        with self._watchers.added(on_change):
            yield

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

    def put(self, item: Item) -> None:
        """Put an item in place, over what stands there, as an operator would by hand."""
        refused = self._put(Operation(Verb.ADD, item))
        assert refused is None, refused
        self._changed(frozenset({item.key}))

    def delete(self, item: Item) -> None:
        """Delete what has this item's key, as an operator would by hand; of routes the first of ours."""
        self._remove(item)
        self._changed(frozenset({item.key}) if item.container is None else frozenset({item.key, item.container}))

    def add_route(self, route: ForeignRoute, *, in_front: bool = True) -> None:
        routes = self.routes.setdefault(route.destination, [])
        routes.insert(0 if in_front else len(routes), route)
        self._changed()

    def flush_nft(self) -> None:
        """Flush all tables, as the reload of a firewall does."""
        self.nft.flush()
        self._changed()

    def hint(self) -> None:
        """Let everyone who watches believe that something has changed."""
        self._changed()

    def find(self, kind: type[Kind]) -> list[Kind]:
        """Find the items of this kind beside."""
        return [item for item in self._items.values() if isinstance(item, kind)]

    # --- whose an item is

    def _apply_one(self, operation: Operation) -> Failure | None:
        for position, (matches, failure) in enumerate(self._refusals):
            if matches(operation):
                del self._refusals[position]
                return failure
        if operation.verb is Verb.REMOVE:
            self._remove(operation.item)
            return None
        return self._put(operation)

    def _put(self, operation: Operation) -> Failure | None:
        kind = type(operation.item)
        if kind in netlink.KINDS:
            return self._put_netlink(operation)
        if kind in nft.KINDS:
            return self.nft.put(operation.item)
        return self._put_beside(operation.item)

    def _remove(self, item: Item) -> None:
        if type(item) in netlink.KINDS:
            self._remove_netlink(item)
        elif type(item) in nft.KINDS:
            self.nft.remove(item)
        else:
            self._items.pop(item.key, None)
        self._drop_what_lacks_something()

    def _put_beside(self, item: Item) -> Failure | None:
        if type(item) not in self.beside:
            return Failure(errno.EOPNOTSUPP, f"no driver is installed for {type(item).noun} items")
        if (missing := self._find_missing(item)) is not None:
            return Failure(errno.ENOENT, f"it needs {' '.join(map(str, missing))}, which is not there")
        for other in self._items.values():
            if other.key != item.key and (why := item.conflict(other)):
                return Failure(errno.EINVAL, why)
        self._items[item.key] = item
        return None

    def _find_missing(self, item: Item) -> Key | None:
        """Find its container, or what it needs of those beside."""
        nouns = {item.within, *(kind.noun for kind in self.beside)}
        needed = (key for key in (item.container, *item.needs(self._items)) if key is not None)
        return next((key for key in needed if key[0] in nouns and not self._has(key)), None)

    def _has(self, key: Key) -> bool:
        return key in self._items or (key[0] == Link.noun and key[1] in self.links)

    def _drop_what_lacks_something(self) -> None:
        while lacking := [item for item in self._items.values() if self._find_missing(item) is not None]:
            for item in lacking:
                del self._items[item.key]

    def _changed(self, keys: Keys = ALL) -> None:
        self._drop_what_lacks_something()
        self._observed.clear()
        self._watchers.tell(keys)
