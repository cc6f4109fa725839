"""The leases of a cluster as an operator asks for them, and what an operator may write: reservations, releases."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from overlayd.core.leases.codec import (
    encode_attributes,
    encode_hold,
    format_hold_name,
    format_subnet_name,
    is_word,
)
from overlayd.core.leases.keeper.transactions import guards_of
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import LeaseRecord
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import CONFIG, Delete, Field, Guard, Put, Snapshot, Transaction
from overlayd.core.leases.subnets import find_config_mismatch
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import ConfigError, NetworkConfig, parse_config
from overlayd.core.status.status import ProblemStatus
from overlayd.core.text.table import format_table


class ReservationError(ValueError):
    """A request that can't be met; the text says why, and names an alternative."""


class LeaseLine(msgspec.Struct, frozen=True):
    """One lease.  `kind` is "lease" or "reservation"; `held` is whether somebody is seen to hold it."""

    subnet: str
    node: str
    node_id: str
    public_ip: str
    backend: str
    kind: str
    held: bool


class Inventory(msgspec.Struct, frozen=True):
    """All leases at one revision, in the order of their subnets, and what is wrong with any record."""

    revision: int
    frozen: bool
    leases: tuple[LeaseLine, ...]
    problems: tuple[ProblemStatus, ...]


def compose_inventory(snapshot: Snapshot) -> Inventory:
    book = absorb_snapshot(RecordBook(), snapshot, asked_at=0)
    held = {hold.subnet for hold in book.holds}
    leases = sorted(book.leases, key=lambda lease: lease.subnet.sort_key)
    return Inventory(
        revision=snapshot.revision,
        frozen=book.is_frozen,
        leases=tuple(_line(lease, held) for lease in leases),
        problems=tuple(
            ProblemStatus(problem.code, problem.text, problem.remedy)
            for problem in book.book.problems(_find_config(snapshot))
        ),
    )


def _line(lease: LeaseRecord, held: set[Subnet]) -> LeaseLine:
    who = lease.attributes
    return LeaseLine(
        subnet=str(lease.subnet),
        node=who.node_name,
        node_id=who.node_id,
        public_ip=",".join(map(str, who.public_ips)),
        backend=who.backend,
        kind="reservation" if lease.is_reservation else "lease",
        held=not lease.is_reservation or lease.subnet in held,
    )


def render_inventory(inventory: Inventory) -> str:
    return "\n".join(_lines(inventory))


def _lines(inventory: Inventory) -> Iterator[str]:
    rows = [("SUBNET", "NODE", "PUBLIC IP", "BACKEND", "KIND", "NODE ID")]
    for lease in inventory.leases:
        kind = lease.kind if lease.held else f"{lease.kind}, not in use"
        rows.append(
            (lease.subnet, lease.node or "-", lease.public_ip, lease.backend or "-", kind, lease.node_id or "-")
        )
    yield from format_table(rows)
    if inventory.frozen:
        yield ""
        yield "claims are frozen"
    if inventory.problems:
        yield ""
        yield "problems"
        for problem in inventory.problems:
            yield f"  {problem.text}  [{problem.code}]"


def make_reservation(snapshot: Snapshot, subnet: Subnet, node_id: str) -> Transaction:
    """Give a free subnet to a node for good, or make the node's own lease a reservation.

    The guards are a claim's: what could collide with it either has the same key or was seen.  A lease that is
    in use stays so: the node's grant, which it was on, gets the hold.  Raises ReservationError.
    """
    if not is_word(node_id):
        raise ReservationError(f"{node_id!r} is no node id: take one from `overlayd leases list`")
    config = _find_config(snapshot)
    if config is None or snapshot.config is None:
        raise ReservationError("there is no valid network config to reserve a subnet of (overlayd config show)")
    if (reason := find_config_mismatch(config, subnet)) is not None:
        raise ReservationError(f"{subnet} can't be reserved: it {reason}")
    book = absorb_snapshot(RecordBook(), snapshot, asked_at=0)
    own = next((lease for lease in book.leases if lease.subnet == subnet), None)
    if own is not None and own.attributes.node_id != node_id:
        raise ReservationError(f"{subnet} is {_whose(own)}: release it first (overlayd leases release)")
    if own is not None and own.is_reservation:
        raise ReservationError(f"{subnet} is reserved for this node already")
    others = [taken for taken in book.taken if own is None or taken != own.subnet]
    others += [hold.subnet for hold in book.holds]
    if (in_the_way := next((taken for taken in others if taken.overlaps(subnet)), None)) is not None:
        raise ReservationError(f"{subnet} can't be reserved: {in_the_way} is taken")

    name, hold_name = format_subnet_name(subnet), format_hold_name(subnet)
    guards: tuple[Guard, ...] = (
        Guard(CONFIG, Field.MOD_REVISION, snapshot.config.mod_revision),
        Guard(hold_name, Field.CREATE_REVISION, 0),
    )
    if own is None:
        guards += (Guard(name, Field.CREATE_REVISION, 0),)
        return Transaction(guards, (Put(name, encode_attributes(Attributes((), node_id=node_id)), 0),))
    value = Put(name, encode_attributes(own.attributes), 0)
    return Transaction(guards + guards_of(own), (value, Put(hold_name, encode_hold(own.attributes), own.lease_id)))


def make_release(snapshot: Snapshot, subnet: Subnet, *, force: bool) -> Transaction:
    """Free a reservation that nobody holds; make one that is held an ordinary lease again, on its node's grant.

    Anything else, a lease or a record that can't be read, is deleted only with `force`: its node may believe
    that it holds the subnet, until it looks.  Raises ReservationError.
    """
    name, hold_name = format_subnet_name(subnet), format_hold_name(subnet)
    record = next((record for record in snapshot.subnets if record.name == name), None)
    if record is None:
        raise ReservationError(f"there is no lease of {subnet}: see `overlayd leases list`")
    unchanged = (Guard(name, Field.MOD_REVISION, record.mod_revision),)
    if force:
        return Transaction(unchanged, (Delete(name), Delete(hold_name)))
    book = absorb_snapshot(RecordBook(), snapshot, asked_at=0)
    lease = next((lease for lease in book.leases if lease.subnet == subnet), None)
    if lease is None or not lease.is_reservation:
        owner = f"is {_whose(lease)}" if lease is not None else "has no known owner"
        raise ReservationError(
            f"{subnet} {owner}, and may be in use: run `overlayd cleanup --release` on that node. "
            "If the node is gone for good, use --force"
        )
    hold = next((hold for hold in book.holds if hold.subnet == subnet), None)
    if hold is None:
        return Transaction((*unchanged, Guard(hold_name, Field.CREATE_REVISION, 0)), (Delete(name),))
    still_held = Guard(hold_name, Field.LEASE_ID, hold.lease_id)
    return Transaction((*unchanged, still_held), (Put(name, record.value, hold.lease_id), Delete(hold_name)))


def _whose(lease: LeaseRecord) -> str:
    word = "reserved for" if lease.is_reservation else "leased to"
    return f"{word} {lease.attributes.node_name or lease.attributes.identity}"


def _find_config(snapshot: Snapshot) -> NetworkConfig | None:
    try:
        return parse_config(snapshot.config.value) if snapshot.config is not None else None
    except ConfigError:
        return None
