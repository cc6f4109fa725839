"""What the keeper writes, and what must hold of the store for it: nothing is ever put blindly."""

from __future__ import annotations

from dataclasses import replace

from overlayd.core.leases.codec import encode_attributes, encode_hold, format_hold_name, format_subnet_name
from overlayd.core.leases.keeper.recognition import find_hold
from overlayd.core.leases.keeper.state import AskCommit, KeeperState, StoreView
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import Hold, LeaseRecord
from overlayd.core.leases.store import CONFIG, FROZEN, Delete, Field, Guard, Put, Transaction
from overlayd.core.network.addresses import Subnet


def claim(state: KeeperState, store_view: StoreView, subnet: Subnet, wanted: Attributes) -> AskCommit:
    """Claim a new key.  Under one config all subnets have one length, so what could collide has the same key; what
    has another length was there before the config, and so was seen."""
    name = format_subnet_name(subnet)
    guards = [
        Guard(name, Field.CREATE_REVISION, 0),
        Guard(CONFIG, Field.MOD_REVISION, store_view.config_revision),
        Guard(FROZEN, Field.CREATE_REVISION, 0),
    ]
    actions: list[Put | Delete] = [Put(name, encode_attributes(wanted), state.lease_id)]
    if (hold := find_hold(store_view, subnet)) is None:
        guards.append(Guard(format_hold_name(subnet), Field.CREATE_REVISION, 0))
    else:  # our own, of a reservation that is gone
        guards += _hold_guards(hold)
        actions.append(Delete(format_hold_name(subnet)))
    return AskCommit(Transaction(tuple(guards), tuple(actions)), LeaseRecord(subnet, wanted, 0, 0, state.lease_id))


def keep(state: KeeperState, store_view: StoreView, lease: LeaseRecord, wanted: Attributes) -> AskCommit:
    """Write an existing record of ours again: with the wanted attributes, and on our grant, or, for a
    reservation, with a hold on our grant."""
    name, guards = format_subnet_name(lease.subnet), guards_of(lease)
    if state.held is None:
        guards += (Guard(FROZEN, Field.CREATE_REVISION, 0),)
    hold = find_hold(store_view, lease.subnet)
    overwritten = lease in store_view.damaged and hold is None  # a plain put took it off our grant
    if not lease.is_reservation or overwritten:
        put = Put(name, encode_attributes(wanted), state.lease_id)
        result = replace(lease, attributes=wanted, lease_id=state.lease_id)
        return AskCommit(Transaction(guards, (put,)), result)
    hold_name = format_hold_name(lease.subnet)
    absent = (Guard(hold_name, Field.CREATE_REVISION, 0),)
    actions = (Put(name, encode_attributes(wanted), 0), Put(hold_name, encode_hold(wanted), state.lease_id))
    transaction = Transaction(guards + (absent if hold is None else _hold_guards(hold)), actions)
    return AskCommit(transaction, replace(lease, attributes=wanted))


def guards_of(lease: LeaseRecord) -> tuple[Guard, ...]:
    """Return the guards by which a key is the very record that we saw."""
    name = format_subnet_name(lease.subnet)
    return (
        Guard(name, Field.CREATE_REVISION, lease.create_revision),
        Guard(name, Field.LEASE_ID, lease.lease_id),
    )


def _hold_guards(hold: Hold) -> tuple[Guard, ...]:
    name = format_hold_name(hold.subnet)
    return (
        Guard(name, Field.CREATE_REVISION, hold.create_revision),
        Guard(name, Field.LEASE_ID, hold.lease_id),
    )


def release(lease: LeaseRecord) -> Transaction:
    """Delete the key of this very lease; refused if it has been written since, by ourselves or another: a
    release that is under way for long must not hit what was adopted meanwhile."""
    name = format_subnet_name(lease.subnet)
    guards = (*guards_of(lease), Guard(name, Field.MOD_REVISION, lease.mod_revision))
    return Transaction(guards, (Delete(name),))


def release_hold(hold: Hold) -> Transaction:
    """Delete this very hold."""
    return Transaction(_hold_guards(hold), (Delete(format_hold_name(hold.subnet)),))
