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
    SENDERS,
    SENDERS_TYPE,
    SOURCE_CHECK,
    TABLE,
    NftChain,
    NftTable,
    Sender,
)
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Item, KernelState

_OURS = f"{FAMILY} {TABLE}"
_SET = f"add set {_OURS} {SENDERS} {{ typeof {SENDERS_TYPE}; flags interval; }}"

FEW = 10
"""Senders that are removed one by one, at most.  The kernel looks for each through the whole set: of five
thousand, two hundred take two seconds, and to replace the whole set a tenth of one."""


def commands(operation: Operation) -> list[str]:
    """The lines for one operation on an item of nft's."""
    match operation.item:
        case NftTable():
            if operation.verb is Verb.REMOVE:
                return [f"delete table {_OURS}"]
            remake = [f"delete table {_OURS}"] if operation.verb is Verb.CHANGE else []
            return [f"add table {_OURS}", *remake, *_frame()]
        case NftChain() as chain:
            if operation.verb is Verb.REMOVE:
                return [f"delete chain {_OURS} {chain.name}"]
            return [
                f"add chain {_OURS} {chain.name}",
                f"delete chain {_OURS} {chain.name}",
                f"add chain {_OURS} {chain.name} {{ {chain.head} }}",
                *(f"add rule {_OURS} {chain.name} {rule}" for rule in chain.rules),
            ]
        case Sender(address, prefix):
            verb = "delete" if operation.verb is Verb.REMOVE else "add"
            first, last = int(prefix.network_address), int(prefix.broadcast_address)
            inner = f"{first}-{last}" if last > first else str(first)
            return [f"{verb} element {_OURS} {SENDERS} {{ {address} . {inner} }}"]
        case other:
            raise TypeError(f"{other} is nothing of nft's")


def _frame() -> list[str]:
    """What stands in the table before any chain: adding it again changes nothing."""
    return [
        f"add table {_OURS}",
        *(f"add counter {_OURS} {name}" for name in COUNTERS),
        _SET,
    ]


class Part(NamedTuple):
    """Lines that do what these operations, by their numbers, ask for."""

    operations: tuple[int, ...]
    lines: list[str]


def plan_parts(operations: Sequence[Operation], there: KernelState) -> list[Part]:
    """What to tell nft in order to carry out these operations on what is `there`."""
    due = {
        number: operation
        for number, operation in enumerate(operations)
        if operation.verb is not Verb.REMOVE or operation.item.key in there.by_key
    }
    leaving = {
        number: operation.item
        for number, operation in due.items()
        if operation.verb is Verb.REMOVE and isinstance(operation.item, Sender)
    }
    if len(leaving) <= FEW:
        return [Part((number,), commands(operation)) for number, operation in due.items()]
    rest = [Part((number,), commands(operation)) for number, operation in due.items() if number not in leaving]
    return [Part(tuple(leaving), _without(there, set(leaving.values()))), *rest]


def _without(there: KernelState, leaving: Collection[Item]) -> list[str]:
    """A new set that lacks these senders in place of the old one, and the chain that looks into it."""
    chains = [item for item in there.items if isinstance(item, NftChain) and item.name == SOURCE_CHECK]
    staying = [item for item in there.items if isinstance(item, Sender) and item not in leaving]
    lines = [*(f"delete chain {_OURS} {chain.name}" for chain in chains), f"delete set {_OURS} {SENDERS}", _SET]
    back: list[Item] = [*staying, *chains]
    for item in back:
        lines += commands(Operation(Verb.ADD, item))
    return lines


def assemble(parts: Sequence[Part]) -> tuple[str, list[int]]:
    """The script of all parts, and for each of its lines the place of its part.  nft counts lines from 1, so what
    stands at place 0 is of no use."""
    owners = [-1, *(place for place, part in enumerate(parts) for _ in part.lines)]
    return "".join(f"{line}\n" for part in parts for line in part.lines), owners
