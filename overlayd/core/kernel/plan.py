"""From the desired and the actual state to the operations that turn one into the other.

The order keeps one promise at every step: no route leads to a VTEP that is not there.  What goes early (routes,
and all that may stand in the way of something new) goes first; then things are added, from the link upwards,
routes last; then the rest goes, from the top downwards.  The items' types say which is which
(`core.kernel.items`).
A plan is made of stages: the operations of one stage do not depend on one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Item, KernelState, Key, Removal, Replacement


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in order, stage by stage; empty when desired and actual state agree."""

    stages: tuple[tuple[Operation, ...], ...] = ()

    def __iter__(self) -> Iterator[Operation]:
        return (operation for stage in self.stages for operation in stage)

    def __len__(self) -> int:
        return sum(map(len, self.stages))

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def diff(
    desired: KernelState, actual: KernelState, *, sweep: bool, all_desired: Mapping[Key, Item] | None = None
) -> Plan:
    """Plan how to make `actual` into `desired`.

    Without `sweep` nothing is removed but what stands in the way of something desired: the rule for the time
    before the first snapshot, when absence from the desired state means nothing yet.  What goes as a whole, or is
    made again, takes with it what it contains.  Where both are parts of larger states, `all_desired` is all that
    is desired: what an operation needs may stand outside the parts.
    """
    unwanted = actual.items - desired.items
    wanted = desired.by_key
    everything = wanted if all_desired is None else all_desired
    replaced = {item: item.replacement(wanted[item.key]) for item in unwanted if item.key in wanted}
    gone = [item for item in unwanted if sweep and item not in replaced and item.removal is not Removal.NEVER]
    in_the_way = [item for item, how in replaced.items() if how is Replacement.REMOVE_FIRST]
    emptied = {item.key for item, how in replaced.items() if how is not Replacement.IN_PLACE}
    emptied |= {item.key for item in gone if item.removal is Removal.WHOLE}
    vanishing = _contents(actual, emptied)
    absent = vanishing.union(in_the_way)

    additions: list[Operation] = []
    for item in desired.items - (actual.items - absent):
        was = actual.by_key.get(item.key)
        if was is None or was in absent:
            additions.append(Operation(Verb.ADD, item, needs=_needs(item, everything)))
        else:
            additions.append(Operation(Verb.CHANGE, item, was, _needs(item, everything)))
    removals = [Operation(Verb.REMOVE, item) for item in gone if item not in vanishing]
    stages = [
        *reversed(_staged(each for each in removals if each.item.removal is Removal.EARLY)),
        *_staged(Operation(Verb.REMOVE, item) for item in in_the_way),
        *_staged(additions),
        *reversed(_staged(each for each in removals if each.item.removal is not Removal.EARLY)),
    ]
    return Plan(tuple(stages))


def _contents(actual: KernelState, emptied: Iterable[Key]) -> set[Item]:
    """Find all that vanishes with these containers, and with what is in them; a container ranks lower than what it
    contains."""
    keys, found = set(emptied), set[Item]()
    if keys:
        for item in sorted(actual.items, key=lambda each: each.rank):
            if item.container in keys:
                keys.add(item.key)
                found.add(item)
    return found


def _needs(item: Item, desired: Mapping[Key, Item]) -> frozenset[Key]:
    return frozenset(key for key in item.needs(desired) if key in desired)


def _staged(operations: Iterable[Operation]) -> list[tuple[Operation, ...]]:
    by_item = {operation.item: operation for operation in operations}
    by_rank: dict[int, list[Operation]] = {}
    for item in KernelState(frozenset(by_item)):
        by_rank.setdefault(item.rank, []).append(by_item[item])
    return [tuple(stage) for stage in by_rank.values()]
