"""What an event means for the keeper's state: whose a record is, and whether this node still holds it."""

from __future__ import annotations

from dataclasses import replace

from overlayd.core.leases.keeper.state import (
    AskCommit,
    CommandFailed,
    CommitResult,
    Event,
    Granted,
    Held,
    KeeperState,
    KeptAlive,
    Lost,
    Missing,
    RefreshView,
    StoreView,
    StoreViewed,
)
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import Hold, LeaseRecord
from overlayd.core.leases.store import Committed, Refused
from overlayd.core.leases.subnets import find_config_mismatch
from overlayd.core.network.addresses import Subnet

RENEW_EVERY_AT_MOST = 60.0
RETRY_FIRST, RETRY_LAST = 0.5, 15.0
"""Seconds before the first retry, and what the doubling ends at."""


def margin(ttl: float) -> float:
    """Return the seconds by which belief ends before the TTL: 2 % for clocks of different rates, 10 s at least."""
    return max(0.02 * ttl, 10.0)


def absorb(state: KeeperState, event: Event, now: float, chance: float) -> KeeperState:
    """Take in one event, and decide nothing."""
    asked = state.pending
    if isinstance(event, Granted | KeptAlive | CommitResult | CommandFailed):
        state = replace(state, pending=None)
    match event:
        case StoreViewed(store_view=store_view, wanted=wanted):
            if isinstance(asked, RefreshView):
                state = replace(state, pending=None, commit_outcome_unknown=False, need_revision=0)
            if state.store_view is not None and store_view.returns != state.store_view.returns:
                state = _forget_revisions(state)
            return _recognise(replace(state, store_view=store_view, wanted=wanted))
        case Granted(grant=grant, sent_at=sent_at):
            return _renewed(replace(state, lease_id=grant.lease_id), grant.ttl, sent_at)
        case KeptAlive(ttl=0):
            return _gone(replace(state, lease_id=0, failures=0, commit_outcome_unknown=True))
        case KeptAlive(ttl=ttl, sent_at=sent_at):
            lapsed = sent_at >= state.until
            return _renewed(_gone(state) if lapsed else state, ttl, sent_at)
        case CommitResult(outcome=Committed(revision=revision)):
            assert isinstance(asked, AskCommit)
            state = replace(state, failures=0, complaint="", need_revision=revision)
            return state if asked.result is None else _hold(state, asked.result, revision)
        case CommitResult(outcome=Refused(revision=revision)):
            state = replace(state, need_revision=max(state.need_revision, revision), commit_outcome_unknown=True)
            return _delayed(state, now, chance)
        case CommandFailed(reason=reason):
            commit_outcome_unknown = state.commit_outcome_unknown or isinstance(asked, AskCommit)
            return _delayed(
                replace(state, complaint=reason, commit_outcome_unknown=commit_outcome_unknown), now, chance
            )
    return state


def _delayed(state: KeeperState, now: float, chance: float) -> KeeperState:
    """Delay the next attempt after a failed write; a read that works is no reason to hurry."""
    pause = min(RETRY_FIRST * 2.0**state.failures, RETRY_LAST) * (0.5 + chance / 2)
    return replace(state, failures=min(state.failures + 1, 16), retry_at=now + pause)


def _renewed(state: KeeperState, ttl: int, sent_at: float) -> KeeperState:
    return replace(
        state,
        until=sent_at + ttl - margin(ttl),
        renew_at=sent_at + min(ttl / 6, RENEW_EVERY_AT_MOST),
        failures=0,
        complaint="",
    )


def _forget_revisions(state: KeeperState) -> KeeperState:
    """Forget all revisions: the store went back, and its content now is news, however low its revision.  What
    it holds of this node may be an earlier life's, so it is taken over as at the start of a life."""
    phase = state.phase
    if isinstance(phase, Held | Missing):
        phase = replace(phase, record=replace(phase.record, mod_revision=0))
    return replace(state, phase=phase, need_revision=0, has_held=False)


def _hold(state: KeeperState, result: LeaseRecord, revision: int) -> KeeperState:
    created = result.create_revision or revision
    held = replace(result, create_revision=created, mod_revision=revision)
    return replace(state, phase=Held(held), previous=held.subnet, has_held=True)


def _gone(state: KeeperState) -> KeeperState:
    """Note that our record is gone, and no other is in its place: serve on, and claim it again, once it
    is known whether the grant is still alive."""
    if state.held is None:
        return state
    return replace(state, phase=Missing(state.held), renew_at=0.0)


def _recognise(state: KeeperState) -> KeeperState:
    """Compare what we believe with what was seen, if what was seen is not older."""
    served, store_view = state.served, state.store_view
    if served is None or store_view is None or store_view.revision < served.mod_revision:
        return state
    if (reason := find_config_mismatch(store_view.config, served.subnet)) is not None:
        return replace(state, phase=Lost(config_mismatch=reason))
    found: LeaseRecord | None = None
    for lease in store_view.leases:
        if lease.subnet == served.subnet:
            found = lease
        elif lease.create_revision < served.create_revision and lease.subnet.overlaps(served.subnet):
            return replace(state, phase=Lost(lease.attributes.identity))
    if found is None:
        found = next((lease for lease in store_view.damaged if lease.subnet == served.subnet), None)
        if found is None or state.held is None or not is_overwritten(state, found):
            return _gone(state)
        return replace(state, phase=Held(found))  # nobody else holds it: it will be written again
    if not is_ours(state, found):
        same = found.attributes.node_id == state.node_id
        return replace(
            state, phase=Lost("another incarnation of this node" if same else found.attributes.identity)
        )
    if state.held is not None and _is_held(state.held, state.lease_id, found, store_view):
        return replace(state, phase=Held(found))
    return _gone(state)


def _is_held(held: LeaseRecord, lease_id: int, found: LeaseRecord, store_view: StoreView) -> bool:
    """Tell whether this record, ours by its name, is the one that we hold: by our grant, or by a hold on it."""
    if found.create_revision != held.create_revision:
        return False
    if not found.is_reservation:
        return found.lease_id == lease_id
    hold = find_hold(store_view, found.subnet)
    return hold is not None and hold.lease_id == lease_id


def is_overwritten(state: KeeperState, damaged: LeaseRecord) -> bool:
    """Tell whether this is the record that we serve, with a value put over it by hand.

    A plain put takes the key off our grant as well; nobody else can have created it meanwhile.
    """
    served = state.served
    if served is None or (damaged.subnet, damaged.create_revision) != (served.subnet, served.create_revision):
        return False
    return damaged.lease_id in (0, state.lease_id)


def find_hold(store_view: StoreView, subnet: Subnet) -> Hold | None:
    """Find the hold on the reservation of this subnet, whoever's it is."""
    return next((hold for hold in store_view.holds if hold.subnet == subnet), None)


def is_ours(state: KeeperState, record: LeaseRecord | Hold) -> bool:
    """Tell whether a record is this run's own.  Before it has held anything, also what an earlier life of this
    node left, or what flannel left on this node, which is known by its public address alone."""
    who = record.attributes if isinstance(record, LeaseRecord) else record
    if who.node_id:
        known = not state.has_held or who.incarnation in ("", state.incarnation)  # an operator names no life
        return who.node_id == state.node_id and known
    if state.has_held or state.wanted is None or not isinstance(who, Attributes):
        return False
    return bool(who.public_ips) and who.public_ips == state.wanted.public_ips
