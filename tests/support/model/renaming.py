"""Which names a world may be told by, and what it is with other names.

Nothing in the keeper computes with revisions or ids of leases: it compares them.  So two worlds are the same if
they differ only in *which* numbers stand for the revisions (their order kept), for the leases, and in which node
is called what.  `rename` gives any value of a world other names; `names_in` tells which ones it has.

A lease's id tells who asked for it: node n's are n·8 + 1, n·8 + 2, ….
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from typing import Any

from overlayd.core.leases.codec import encode_attributes, encode_hold
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.store import Field, Guard
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig
from support.model.store import AbstractStore

NODES = 3
OPERATOR = NODES
"""Who asks for leases beside the nodes."""
IDS = 8
"""Room for the lease ids of one node."""
LIVES = 4
"""Incarnations of one node at most."""
REVISIONS = {"revision", "create_revision", "mod_revision", "config_revision", "need_revision"}

Perm = tuple[int, ...]
"""The new number of each node, and of the operator."""
SAME: Perm = tuple(range(NODES + 1))


def node_name(number: int) -> str:
    return f"node{number}"


def attributes(number: int, life: int, changed: bool = False) -> Attributes:
    """What this node says of itself in this life."""
    data = '{"VNI":2}' if changed else '{"VNI":1}'
    return Attributes(
        (IPv4Address(f"10.99.0.{number + 1}"),), "vxlan", data, None, node_name(number), "", str(life)
    )


def reserved(number: int) -> Attributes:
    """What an operator writes who reserves a subnet for this node."""
    return Attributes((), node_id=node_name(number))


def _every() -> dict[Attributes, tuple[int, Callable[[int], Attributes]]]:
    found: dict[Attributes, tuple[int, Callable[[int], Attributes]]] = {}
    for number in range(NODES):
        found[reserved(number)] = (number, reserved)
        for life in range(LIVES):
            for changed in (False, True):
                found[attributes(number, life, changed)] = (
                    number,
                    lambda n, life=life, changed=changed: attributes(n, life, changed),  # type: ignore[misc]
                )
    return found


_ATTRIBUTES = _every()
_VALUES: dict[bytes, tuple[int, Callable[[int], bytes]]] = {
    encode(given): (number, lambda n, encode=encode, make=make: encode(make(n)))  # type: ignore[misc]
    for given, (number, make) in _ATTRIBUTES.items()
    for encode in (encode_attributes, encode_hold)
}


@dataclass(frozen=True, slots=True)
class Renaming:
    """Revision and lease id by the old one; the new number of each node."""

    revisions: dict[int, int]
    lease_ids: dict[int, int]
    perm: Perm


@dataclass(slots=True)
class Names:
    """Bit r of `revisions` is set if revision r occurs, likewise for the ids of leases."""

    revisions: int = 0
    lease_ids: int = 0


def _fields(kind: type) -> tuple[str, ...]:
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return names


_FIELDS: dict[type, tuple[str, ...]] = {}
_PLAIN = (int, float, str, type(None), enum.Enum, Subnet, NetworkConfig)


def names_in(value: Any, into: Names) -> None:
    if isinstance(value, tuple):
        for one in value:
            names_in(one, into)
    elif isinstance(value, Guard):
        if value.field is Field.LEASE_ID:
            into.lease_ids |= 1 << value.equals
        else:
            into.revisions |= 1 << value.equals
    elif not dataclasses.is_dataclass(value) or isinstance(value, (Attributes, *_PLAIN)):
        return
    else:
        for name in _fields(type(value)):
            field = getattr(value, name)
            if name in REVISIONS:
                into.revisions |= 1 << field
            elif name == "lease_id":
                into.lease_ids |= 1 << field
            elif not isinstance(field, _PLAIN):
                names_in(field, into)


def rename(value: Any, by: Renaming) -> Any:
    if isinstance(value, tuple):
        return tuple(rename(one, by) for one in value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Attributes):
        known = _ATTRIBUTES.get(value)
        return value if known is None else known[1](by.perm[known[0]])
    if isinstance(value, bytes):
        found = _VALUES.get(value)
        return value if found is None else found[1](by.perm[found[0]])
    if isinstance(value, Guard):
        table = by.lease_ids if value.field is Field.LEASE_ID else by.revisions
        return Guard(value.name, value.field, table[value.equals])
    if not dataclasses.is_dataclass(value):
        return value
    if isinstance(value, AbstractStore) and value.grants:
        grants = sorted(rename(value.grants, by), key=lambda lived: lived.lease_id)
        value = dataclasses.replace(value, grants=())
        return dataclasses.replace(rename(value, by), grants=tuple(grants))
    changed: dict[str, Any] = {}
    for name in _fields(type(value)):
        field = getattr(value, name)
        if name in REVISIONS:
            new: Any = by.revisions[field]
        elif name == "lease_id":
            new = by.lease_ids[field]
        elif name == "node_id":
            new = node_name(by.perm[int(field[4:])]) if field else field
        elif isinstance(field, _PLAIN):
            continue
        else:
            new = rename(field, by)
        if new is not field:
            changed[name] = new
    return dataclasses.replace(value, **changed) if changed else value  # type: ignore[type-var]


# Sets of names as bits of an integer


@cache
def bits(mask: int) -> tuple[int, ...]:
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


@cache
def ranked(mask: int, among: int) -> int:
    """Each revision of `mask`, moved to its rank among the revisions of `among`."""
    return sum(1 << (among & (1 << bit) - 1).bit_count() for bit in bits(mask))


@cache
def ranked_ids(mask: int, among: int) -> int:
    """Each lease id of `mask`, moved to its rank among those of the same node in `among`."""
    return sum(
        1 << bit // IDS * IDS + (among >> bit // IDS * IDS & (1 << bit % IDS) - 1 | 1 if bit else 0).bit_count()
        for bit in bits(mask)
    )
