"""From operations to what `nft -f -` is told.

One script is one transaction: all of it or nothing.  A chain that is to change is deleted and added again within
it, so that no packet meets an instant without it.  Each command is one line, by which nft names what it refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from overlayd.core.firewall.nftables import (
    COUNTERS,
    FAMILY,
    NODES,
    OTHERS,
    SENDERS_TYPE,
    SOURCE_CHECK,
    TABLE,
    NftChain,
    NftTable,
    Sender,
    senders,
)
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Item, KernelState

_OURS = f"{FAMILY} {TABLE}"
_OTHERS = f"add set {_OURS} {OTHERS} {{ typeof {SENDERS_TYPE}; flags interval; }}"

FEW = 10
"""Senders that are removed from the interval set one by one, at most.  The kernel looks for each through the
whole set: of five thousand, two hundred take two seconds, and to replace the whole set a tenth of one.  A hash set
needs no such care: from ten thousand, two hundred go in 25 ms."""


def commands(operation: Operation, prefixlen: int) -> list[str]:
    """Return the lines for one operation on an item in nft, in a table of this prefix length."""
    match operation.item:
        case NftTable() as table:
            if operation.verb is Verb.REMOVE:
                return [f"delete table {_OURS}"]
            remake = [f"delete table {_OURS}"] if operation.verb is Verb.CHANGE else []
            return [f"add table {_OURS}", *remake, *_frame(table)]
        case NftChain() as chain:
            if operation.verb is Verb.REMOVE:
                return [f"delete chain {_OURS} {chain.name}"]
            return [
                f"add chain {_OURS} {chain.name}",
                f"delete chain {_OURS} {chain.name}",
                f"add chain {_OURS} {chain.name} {{ {chain.head} }}",
                *(f"add rule {_OURS} {chain.name} {rule}" for rule in chain.rules),
            ]
        case Sender(address, prefix) as sender:
            verb, name = "delete" if operation.verb is Verb.REMOVE else "add", sender.set_in(prefixlen)
            first, last = int(prefix.network_address), int(prefix.broadcast_address)
            inner = f"{first}-{last}" if name == OTHERS and last > first else str(first)
            return [f"{verb} element {_OURS} {name} {{ {int(address)} . {inner} }}"]
        case other:
            raise TypeError(f"{other} is no item of nftables")


def _frame(table: NftTable) -> list[str]:
    """Return the lines before any chain: adding them again changes nothing."""
    return [
        f"add table {_OURS}",
        *(f"add counter {_OURS} {name}" for name in COUNTERS),
        *(f"add set {_OURS} {name} {{ typeof {SENDERS_TYPE}; }}" for name in (NODES, senders(table.prefixlen))),
        _OTHERS,
    ]


class Part(NamedTuple):
    """Lines that do what these operations, by their numbers, ask for."""

    operations: tuple[int, ...]
    lines: list[str]


def plan_parts(operations: Sequence[Operation], there: KernelState) -> list[Part]:
    """Plan the input of nft that carries out these operations on the items that are `there`."""
    due = {
        number: operation
        for number, operation in enumerate(operations)
        if operation.verb is not Verb.REMOVE or operation.item.key in there.by_key
    }
    tables = [*(operation.item for operation in operations), *there.items]
    prefixlen = next((table.prefixlen for table in tables if isinstance(table, NftTable)), 0)
    leaving = {
        number: operation.item
        for number, operation in due.items()
        if operation.verb is Verb.REMOVE and _is_other(operation.item, prefixlen)
    }
    parts = {number: commands(operation, prefixlen) for number, operation in due.items()}
    if len(leaving) <= FEW:
        return [Part((number,), lines) for number, lines in parts.items()]
    rest = [Part((number,), lines) for number, lines in parts.items() if number not in leaving]
    return [Part(tuple(leaving), _without(there, set(leaving.values()), prefixlen)), *rest]


def _is_other(item: Item, prefixlen: int) -> bool:
    return isinstance(item, Sender) and item.set_in(prefixlen) == OTHERS


def _without(there: KernelState, leaving: Collection[Item], prefixlen: int) -> list[str]:
    """Return a new interval set that lacks these senders in place of the old one, and the chain that looks into
    it."""
    chains = [item for item in there.items if isinstance(item, NftChain) and item.name == SOURCE_CHECK]
    staying = [item for item in there.items if _is_other(item, prefixlen) and item not in leaving]
    lines = [*(f"delete chain {_OURS} {chain.name}" for chain in chains), f"delete set {_OURS} {OTHERS}", _OTHERS]
    back: list[Item] = [*staying, *chains]
    for item in back:
        lines += commands(Operation(Verb.ADD, item), prefixlen)
    return lines


def assemble(parts: Sequence[Part]) -> tuple[str, list[int]]:
    """Assemble the script of all parts, and for each of its lines the place of its part.  nft counts lines
    from 1, so what stands at place 0 is of no use."""
    owners = [-1, *(place for place, part in enumerate(parts) for _ in part.lines)]
    return "".join(f"{line}\n" for part in parts for line in part.lines), owners
