"""From a wish and an observation to the operations that turn one into the other.

The order keeps one promise at every step: no route leads to a VTEP that is not there.  Routes that go, go
first; then what is added, from the link upwards, routes last; then what else goes, from the top downwards.
Chains, senders and encaps that go, go early like routes: an old sender or encap may stand in the way of a new
one that overlaps it, and a chain must not outlive those whom it lets in.
A plan is made of stages: the operations of one stage do not depend on one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from overlayd.core.firewall.iptables import ForwardRules
from overlayd.core.firewall.nftables import NftChain, NftTable, Sender
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import (
    Address,
    Datapath,
    Encap,
    FdbEntry,
    Forwarding,
    Item,
    KernelState,
    Key,
    Link,
    Neighbour,
    Route,
    rank,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in order, stage by stage; empty when wish and observation agree."""

    stages: tuple[tuple[Operation, ...], ...] = ()

    def __iter__(self) -> Iterator[Operation]:
        return (operation for stage in self.stages for operation in stage)

    def __len__(self) -> int:
        return sum(map(len, self.stages))

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def diff(desired: KernelState, actual: KernelState, *, sweep: bool) -> Plan:
    """The plan that makes `actual` into `desired`.

    Without `sweep` nothing is removed but what stands in the way of something desired: the rule for the time
    before the first snapshot, when absence from the wish means nothing yet.  Forwarding is never taken back.
    A table that goes, or is made anew, takes with it what is in it.
    """
    unwanted = actual.items - desired.items
    doomed = [
        item
        for item in unwanted
        if isinstance(item, Link)
        and isinstance(wanted := desired.by_key.get(item.key), Link)
        and wanted.kind != item.kind
    ]
    removals = [Operation(Verb.REMOVE, item) for item in doomed]
    names = {item.name for item in doomed}
    vanishing = {item for item in actual.items if _is_on(item, names)} if doomed else set[Item]()
    if any(isinstance(item, NftTable) and (sweep or item.key in desired.by_key) for item in unwanted):
        vanishing |= {item for item in actual.items if isinstance(item, NftChain | Sender)}

    additions: list[Operation] = []
    for item in desired.items - (actual.items - vanishing):
        was = actual.by_key.get(item.key)
        if was is None or was in vanishing:
            additions.append(Operation(Verb.ADD, item, needs=_needs(item, desired)))
        else:
            additions.append(Operation(Verb.CHANGE, item, was, _needs(item, desired)))
    gone = [
        item
        for item in unwanted - vanishing
        if sweep and item.key not in desired.by_key and not isinstance(item, Forwarding)
    ]
    first = [Operation(Verb.REMOVE, item) for item in gone if isinstance(item, _EARLY)]
    last = [Operation(Verb.REMOVE, item) for item in gone if not isinstance(item, _EARLY)]
    stages = [
        *reversed(_staged(first)),
        *_staged(removals),
        *_staged(additions),
        *reversed(_staged(last)),
    ]
    return Plan(tuple(stages))


_EARLY = (Route, Encap, NftChain, Sender)


def _staged(operations: Iterable[Operation]) -> list[tuple[Operation, ...]]:
    by_rank: dict[int, list[Operation]] = {}
    for operation in operations:
        by_rank.setdefault(rank(operation.item), []).append(operation)
    order = {item: place for place, item in enumerate(KernelState.of(o.item for o in operations))}
    return [tuple(sorted(by_rank[r], key=lambda o: order[o.item])) for r in sorted(by_rank)]


def _is_on(item: Item, links: set[str]) -> bool:
    """Whether the item is one of these links or vanishes with it."""
    match item:
        case Link(name=name):
            return name in links
        case (
            Address(link=link)
            | Datapath(link=link)
            | Encap(link=link)
            | FdbEntry(link=link)
            | Neighbour(link=link)
            | Route(link=link)
        ):
            return link in links
        case Forwarding() | ForwardRules() | NftTable() | NftChain() | Sender():
            return False


def _needs(item: Item, desired: KernelState) -> frozenset[Key]:
    """What must be in place before this item is of use: its link or its table; below an encap its datapath; below
    a route the neighbour, and below a neighbour the FDB entry."""
    keys: list[Key] = []
    match item:
        case Address(link=link) | Datapath(link=link) | FdbEntry(link=link):
            keys = [("link", link)]
        case Encap(link=link):
            keys = [("link", link), ("datapath", link)]
        case Neighbour(link=link, mac=mac):
            keys = [("link", link), ("fdb", link, mac)]
        case Route(link=link, gateway=gateway):
            keys = [("link", link), ("neighbour", link, gateway)]
            # the neighbour may stand there already, and its FDB entry not
            if isinstance(vtep := desired.by_key.get(keys[1]), Neighbour):
                keys.append(("fdb", link, vtep.mac))
        case NftChain() | Sender():
            keys = [NftTable().key]
        case Link() | Forwarding() | ForwardRules() | NftTable():
            pass
    return frozenset(key for key in keys if key in desired.by_key)
