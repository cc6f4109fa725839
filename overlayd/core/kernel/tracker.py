"""Both sides by key: what is desired, what is actual, and the keys on which they differ.

A pass costs what changed.  What is desired comes part by part, and only the parts that changed are compared; what
is actual comes as whole observations, as observations of some keys, and as operations that the kernel
acknowledged. The keys on which both sides differ stay in `differing` until they agree, so nothing is forgotten
that failed.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlayd.core.kernel.driver import ALL, Keys, Operation, Verb
from overlayd.core.kernel.items import Item, KernelState, Key
from overlayd.core.kernel.plan import Plan, diff
from overlayd.core.network.desired import DesiredState

NOTHING = DesiredState(KernelState())


class Tracker:
    """Of one network namespace; empty, and sure of nothing, at first."""

    def __init__(self) -> None:
        self.desired: dict[Key, Item] = {}
        self.actual: dict[Key, Item] = {}
        self.differing: set[Key] = set()
        self._state = NOTHING
        self._containers: set[object] = set()
        """The nouns of what contains other items, as far as seen."""

    def want(self, state: DesiredState) -> None:
        """Take in what is desired now, at the cost of the parts that are other objects than before."""
        before, self._state = self._state, state
        if before is state:
            return
        old: list[KernelState] = [before.peers[subnet] for subnet in before.peers.keys() - state.peers.keys()]
        new: list[KernelState] = []
        for subnet, items in state.peers.items():
            known = before.peers.get(subnet)
            if known is not items:
                new.append(items)
                if known is not None:
                    old.append(known)
        if before.base is not state.base:
            old.append(before.base)
            new.append(state.base)
        gone = {key for items in old for key in items.by_key}
        for items in new:
            for key, item in items.by_key.items():
                gone.discard(key)
                self.desired[key] = item
                self._compare(key)
        for key in gone:
            if not self._is_shared(key):
                self.desired.pop(key, None)
                self._compare(key)

    def _is_shared(self, key: Key) -> bool:
        """Tell whether a part that stays wants this key, too."""
        if key in self._state.base.by_key:
            return True
        if not self._state.claims.get(key):
            return False
        return not self._state.refused or any(key in items.by_key for items in self._state.peers.values())

    def observed(self, state: KernelState, keys: Keys = ALL) -> None:
        """Take in an observation: of all that is ours, or of the items that `keys` name and maybe others."""
        if keys is ALL:
            self.actual = dict(state.by_key)
            self._containers |= {kind.within for kind in {type(item) for item in self.actual.values()}}
            both = self.actual.keys() & self.desired.keys()
            self.differing = (self.actual.keys() | self.desired.keys()) - both
            self.differing |= {key for key in both if self.actual[key] != self.desired[key]}
            return
        looked_at = {key for key, item in self.actual.items() if item.container in keys} if keys else set[Key]()
        for key in {*keys, *looked_at} - state.by_key.keys():
            self.actual.pop(key, None)
            self._compare(key)
        for key, item in state.by_key.items():
            self.actual[key] = item
            self._compare(key)

    def applied(self, operations: Iterable[Operation]) -> None:
        """Take in operations that the kernel has acknowledged."""
        for operation in operations:
            key = operation.item.key
            if operation.verb is Verb.REMOVE:
                self.actual.pop(key, None)
            else:
                self.actual[key] = operation.item
            self._compare(key)

    def contains_others(self, item: Item) -> bool:
        """Tell whether items of this type contain others."""
        return item.noun in self._containers

    def plan(self, *, sweep: bool) -> Plan:
        """Plan the operations for the keys on which both sides differ."""
        keys = self.differing
        if any(self._moves_contents(key) for key in keys):
            keys = self.desired.keys() | self.actual.keys()
        return diff(_part(self.desired, keys), _part(self.actual, keys), sweep=sweep, all_desired=self.desired)

    def _moves_contents(self, key: Key) -> bool:
        """Tell whether there is an item that may contain others, which come and go with it."""
        return key[0] in self._containers and key in self.actual

    def _compare(self, key: Key) -> None:
        item = self.actual.get(key) or self.desired.get(key)
        if item is not None and item.within:
            self._containers.add(item.within)
        if self.desired.get(key) == self.actual.get(key):
            self.differing.discard(key)
        else:
            self.differing.add(key)


def _part(side: dict[Key, Item], keys: Iterable[Key]) -> KernelState:
    return KernelState.of(item for key in keys if (item := side.get(key)) is not None)
