"""What makes a difference to anything that can happen later, and nothing else.

`plain` gives a node without what its keeper never reads again before it is replaced.  Each thing that is left out
has its reason beside it; tests/model/test_reduction.py walks at random and compares, step by step, what a world
and its plain form can do.

Much rests on one fact: where the store never goes back, the next view that a node is shown is at least as new as
all that it knows, unless it keeps an old view that it was told of and has not looked at.
"""

from __future__ import annotations

import math
from dataclasses import replace

from overlayd.core.leases.keeper.state import (
    AskCommit,
    AskKeepalive,
    Command,
    CommandFailed,
    CommitResult,
    Held,
    KeeperState,
    Lost,
    Missing,
    RefreshView,
    StoreView,
    Unclaimed,
)
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import Hold, LeaseRecord
from overlayd.core.leases.store import CONFIG, Committed, Field, Guard, Put, Refused, Transaction
from overlayd.core.leases.subnets import find_config_mismatch, subnet_at
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import parse_config
from support.model.store import AbstractStore
from support.model.world import FAULTS, TICK, Budget, ModelNode, ModelScenario

OTHER = Attributes((), node_id="another")
"""Somebody else, whoever it is."""
UNREAD = StoreView(0, 0, parse_config('{"Network":"10.244.0.0/22"}'), (), ())
"""A view that is not read again."""
IN_VAIN = AskCommit(Transaction((Guard(CONFIG, Field.CREATE_REVISION, 0),), ()), None)
"""A write that is always refused."""
DONE = Transaction((), ())
"""One that has been answered."""
NOT_DONE = CommandFailed("refused")
"""The answer to a write that did not happen: whatever the reason, the keeper looks again."""


def careful(node: ModelNode, scenario: ModelScenario) -> ModelNode:
    """The node without what is only for its operator to know, its times in whole ticks: that makes no difference
    to any keeper, also one that lacks a precaution."""
    state = replace(
        node.keeper,
        until=node.keeper.until if node.keeper.lease_id else 0.0,
        renew_at=math.ceil(node.keeper.renew_at / TICK) * TICK if node.keeper.lease_id else 0.0,
        failures=0,
        retry_at=0.0,
        complaint="",
        phase=Unclaimed() if isinstance(node.keeper.phase, Lost) else node.keeper.phase,
        waits_for=None,
    )
    store_view = state.store_view and replace(_without_strangers(state, state.store_view), returns=0)
    return replace(node, keeper=replace(state, store_view=store_view))


def plain(node: ModelNode, scenario: ModelScenario) -> ModelNode:
    """The node without what makes no difference to any later step of the keeper."""
    node = careful(node, scenario)
    if scenario.goes_back:
        return node
    state = node.keeper
    if state.incarnation == "0" and not scenario.twins:
        state = replace(state, has_held=False)  # no record has another life of this node to tell from this one
    answer = node.answer
    if isinstance(answer, CommandFailed) or (
        isinstance(answer, CommitResult) and isinstance(answer.outcome, Refused)
    ):
        answer = NOT_DONE
    node = replace(node, keeper=_looking_ahead(state, node), answer=answer)
    return node if node.kept is None else replace(node, kept=_no_newer(node, _without_strangers(state, node.kept)))


def plain_ghost(command: Command) -> Command:
    """Nobody waits for the answer to a late request."""
    return replace(command, result=None) if isinstance(command, AskCommit) else command


def plain_budget(budget: Budget) -> Budget:
    """A fault can no longer happen if its own allowance is spent, or that of all faults together."""
    faults = min(budget.faults, sum(getattr(budget, kind) for kind in FAULTS))
    return budget._replace(faults=faults, **{kind: min(getattr(budget, kind), faults) for kind in FAULTS})


def is_in_vain(store: AbstractStore, command: Command) -> bool:
    """Whether this request changes nothing, now or at any later time, if the store never goes back: what it wants
    to find there, or the grant that it wants to use, is gone for good."""
    if isinstance(command, AskKeepalive):
        return not store.has_grant(command.lease_id)
    assert isinstance(command, AskCommit)
    return is_refused(store, command) or any(
        isinstance(action, Put) and action.lease_id and not store.has_grant(action.lease_id)
        for action in command.transaction.actions
    )


def is_refused(store: AbstractStore, write: AskCommit) -> bool:
    """Whether some guard of this write can never hold again."""
    return write == IN_VAIN or any(_can_never_hold(store, guard) for guard in write.transaction.guards)


def _can_never_hold(store: AbstractStore, guard: Guard) -> bool:
    if guard.equals == 0:
        return False
    if guard.field is Field.LEASE_ID:
        return not store.has_grant(guard.equals)
    found = store.find(guard.name)
    return found is None or getattr(found, guard.field.value) != guard.equals


def _looking_ahead(state: KeeperState, node: ModelNode) -> KeeperState:
    """What is decided on before the next view, and how the next view will be taken."""
    pending, store_view, need = state.pending, state.store_view, state.need_revision
    if isinstance(pending, RefreshView):
        state = replace(state, commit_outcome_unknown=False)  # the answer resets both
        need = 0
    elif state.commit_outcome_unknown:
        need = 0  # it asks, and then see above
    elif store_view is not None and need <= store_view.revision:
        need = 0
    if isinstance(pending, AskCommit):
        result = pending.result and _without_grant(state, replace(pending.result, mod_revision=0))
        asked = pending.transaction
        if node.answer is not None:
            asked = DONE
            committed = isinstance(node.answer, CommitResult) and isinstance(node.answer.outcome, Committed)
            result = result if committed else None
        pending = AskCommit(asked, result)
    if store_view is not None:
        # whatever becomes of a write, the keeper looks again before it decides anything
        looks_first = isinstance(pending, RefreshView | AskCommit) or state.commit_outcome_unknown or need
        store_view = UNREAD if looks_first else _what_counts(state, store_view)
    if need and _is_behind(node, need):
        need = 1  # the next view will do
    phase = state.phase
    if isinstance(phase, Held):
        phase = Held(_without_grant(state, _recognisable(node, phase.record)))
    elif isinstance(phase, Missing):
        phase = Missing(replace(_recognisable(node, phase.record), attributes=OTHER, lease_id=0))
    return replace(state, pending=pending, store_view=store_view, need_revision=need, phase=phase)


def _is_behind(node: ModelNode, revision: int) -> bool:
    """Whether every view that this node may still be shown is at least this new."""
    return node.kept is None or revision <= node.kept.revision


def _no_newer(node: ModelNode, kept: StoreView) -> StoreView:
    """A view's revision is compared with none but those that its node knows by then: it may as well be the highest
    of these that it was not older than."""
    state, answer = node.keeper, node.answer
    known = [0, state.need_revision, *(lease.mod_revision for lease in (state.served,) if lease)]
    if isinstance(answer, CommitResult) and isinstance(answer.outcome, Committed):
        known.append(answer.outcome.revision)
    return replace(kept, revision=max(revision for revision in known if revision <= kept.revision))


def _recognisable(node: ModelNode, lease: LeaseRecord) -> LeaseRecord:
    """Its last change matters only to tell views that are too old to know of it."""
    return replace(lease, mod_revision=lease.create_revision) if _is_behind(node, lease.mod_revision) else lease


def _without_grant(state: KeeperState, lease: LeaseRecord) -> LeaseRecord:
    """Of its own lease a node asks no more than whether it is a reservation."""
    return replace(lease, lease_id=state.lease_id or lease.lease_id if lease.lease_id else 0)


def _what_counts(state: KeeperState, store_view: StoreView) -> StoreView:
    """This view as far as anything is still decided on it; it is never compared again with what is held.

    Of the others' leases the keeper asks which subnets they take, and whether an older one is in the way of a
    record of its own.
    """
    own = tuple(lease for lease in store_view.leases if lease.attributes.node_id == state.node_id)
    seen = _without_strangers(state, store_view)
    rivals = {
        other.subnet
        for other in seen.leases
        for one in (*own, *store_view.damaged)
        if other.attributes == OTHER and other.subnet.overlaps(one.subnet)
        if other.create_revision < one.create_revision
    }
    leases = tuple(lease for lease in seen.leases if lease.subnet in rivals or lease in own)
    kept = {lease.subnet for lease in (*own, *store_view.damaged)}
    strangers = [hold.subnet for hold in seen.holds if not hold.node_id]
    taken = _blocked(store_view, [*store_view.taken, *strangers])
    holds = tuple(hold for hold in seen.holds if hold.node_id or hold.subnet in kept)
    config_revision = store_view.config_revision
    if len(taken) == store_view.config.capacity:
        config_revision = 0  # there is nothing to claim
    if _is_safe(state, store_view, own, rivals, holds):
        taken, config_revision = (), 0  # what it holds is there to be kept, so no other is claimed
    return replace(
        store_view,
        revision=0,
        config_revision=config_revision,
        leases=leases,
        taken=taken,
        holds=holds,
        returns=0,
    )


def _is_safe(
    state: KeeperState,
    store_view: StoreView,
    own: tuple[LeaseRecord, ...],
    rivals: set[Subnet],
    holds: tuple[Hold, ...],
) -> bool:
    held = state.held
    return (
        held is not None
        and any((one.subnet, one.create_revision) == (held.subnet, held.create_revision) for one in own)
        and find_config_mismatch(store_view.config, held.subnet) is None
        and not rivals
        and all(one.attributes.incarnation in ("", state.incarnation) for one in own)
        and all(hold.node_id and hold.incarnation == state.incarnation for hold in holds)
    )


def _blocked(store_view: StoreView, taken: list[Subnet]) -> tuple[Subnet, ...]:
    """The subnets of the config that can't be chosen as they overlap any of these."""
    every = (subnet_at(store_view.config, number) for number in range(store_view.config.capacity))
    return tuple(subnet for subnet in every if any(subnet.overlaps(other) for other in taken))


def _without_strangers(state: KeeperState, store_view: StoreView) -> StoreView:
    """Whose the others' records are makes no difference, nor when they were last written."""
    leases = tuple(
        lease
        if lease.attributes.node_id == state.node_id
        else LeaseRecord(lease.subnet, OTHER, lease.create_revision, lease.create_revision, 0)
        for lease in store_view.leases
    )
    holds = tuple(
        hold if hold.node_id == state.node_id else Hold(hold.subnet, "", "", 0, 0, 0) for hold in store_view.holds
    )
    return replace(store_view, leases=leases, holds=holds)
