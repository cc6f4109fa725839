"""What the keeper does next: the first rule of the table that applies.

The order is the priority.  docs/leases.md shows the same table; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from overlayd.core.leases.keeper.recognition import find_hold, is_ours, is_overwritten
from overlayd.core.leases.keeper.state import (
    AskCommit,
    AskGrant,
    AskKeepalive,
    Command,
    KeeperState,
    Missing,
    RefreshView,
    StoreView,
)
from overlayd.core.leases.keeper.transactions import claim, keep, release, release_hold
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import LeaseRecord
from overlayd.core.leases.store import Transaction
from overlayd.core.leases.subnets import choose_subnet, find_config_mismatch
from overlayd.core.leases.tenure import Waiting
from overlayd.core.network.addresses import Subnet


@dataclass(frozen=True)
class Situation:
    """The input of a decision.  The input of later rules is computed once they are reached."""

    state: KeeperState
    view: StoreView
    wanted: Attributes
    now: float
    chance: float

    @cached_property
    def own(self) -> list[LeaseRecord]:
        """Every record of ours in the store, oldest first."""
        state = self.state
        own = [lease for lease in self.view.leases if is_ours(state, lease)]
        own += [
            lease
            for lease in self.view.damaged
            if (lease.lease_id and lease.lease_id == state.lease_id) or is_overwritten(state, lease)
        ]
        return sorted(own, key=lambda lease: lease.create_revision)

    @cached_property
    def kept(self) -> LeaseRecord | None:
        """The record to keep: the one that we hold, else the oldest of ours that may be used."""
        return self.state.held or next((lease for lease in self.own if self._may_be_used(lease)), None)

    def _may_be_used(self, lease: LeaseRecord) -> bool:
        """Tell whether a record of ours fits the config, loses to no older record, and is held by no one else."""
        older = (
            other
            for other in self.view.leases
            if other.create_revision < lease.create_revision
            and other.subnet.overlaps(lease.subnet)
            and not is_ours(self.state, other)
        )
        hold = find_hold(self.view, lease.subnet)
        free = hold is None or is_ours(self.state, hold)
        return free and find_config_mismatch(self.view.config, lease.subnet) is None and next(older, None) is None

    @cached_property
    def choice(self) -> Subnet | None:
        """The subnet to claim, None if there is none left."""
        view, state = self.view, self.state
        taken = [*view.taken, *(hold.subnet for hold in view.holds if not is_ours(state, hold))]
        return choose_subnet(view.config, taken, state.previous, self.chance)

    @property
    def is_claim_of_new(self) -> bool:
        """Whether a claim would be of another subnet than the one that is in use."""
        phase = self.state.phase
        return not (isinstance(phase, Missing) and phase.record.subnet == self.choice)


@dataclass(frozen=True, slots=True)
class Rule:
    """`when` and `then` say to people what `find` does: the outcome where the rule applies, else None.

    An outcome is a command, what to wait for, or `Rest`.
    """

    when: str
    then: str
    find: Callable[[Situation], Command | Waiting | Rest | None]


class Rest:
    """Nothing is to be done until the next event, or until time brings something new."""


REST = Rest()


def _pause(it: Situation) -> Rest | None:
    return REST if it.state.failures and it.now < it.state.retry_at else None


def _keep_alive(it: Situation) -> AskKeepalive | None:
    is_due = it.state.lease_id and it.now >= it.state.renew_at
    return AskKeepalive(it.state.lease_id) if is_due else None


def _look(it: Situation) -> RefreshView | None:
    is_old = it.view.revision < it.state.need_revision
    return RefreshView() if it.state.commit_outcome_unknown or is_old else None


def _tidy(it: Situation) -> AskCommit | None:
    if it.kept is None and not it.view.may_claim:
        return None
    leftover = _find_leftover(it.state, it.view, it.own, it.kept)
    return AskCommit(leftover, None) if leftover is not None else None


def _rest(it: Situation) -> Rest | None:
    return REST if it.state.held is not None and it.state.held.attributes == it.wanted else None


def _rewrite(it: Situation) -> AskCommit | None:
    held = it.state.held
    return keep(it.state, it.view, held, it.wanted) if held is not None else None


def _yield_to_other_self(it: Situation) -> Waiting | None:
    def is_other_self(lease: LeaseRecord) -> bool:
        return lease.attributes.node_id == it.state.node_id and not is_ours(it.state, lease)

    return Waiting.OTHER_SELF if it.state.has_held and any(map(is_other_self, it.view.leases)) else None


def _wait_for_host(it: Situation) -> Waiting | None:
    in_use = it.kept is not None or isinstance(it.state.phase, Missing)
    return None if it.view.may_claim or in_use else Waiting.HOST


def _ask_for_grant(it: Situation) -> AskGrant | None:
    return AskGrant(it.state.ttl) if not it.state.lease_id else None


def _wait_for_thaw(it: Situation) -> Waiting | None:
    return Waiting.THAW if it.view.frozen else None


def _adopt(it: Situation) -> AskCommit | None:
    return keep(it.state, it.view, it.kept, it.wanted) if it.kept is not None else None


def _wait_for_config(it: Situation) -> Waiting | None:
    return None if it.view.config_is_current else Waiting.CONFIG


def _wait_for_subnet(it: Situation) -> Waiting | None:
    return Waiting.SUBNET if it.choice is None else None


def _wait_for_host_to_move(it: Situation) -> Waiting | None:
    return Waiting.HOST if not it.view.may_claim and it.is_claim_of_new else None


def _claim(it: Situation) -> AskCommit | None:
    return claim(it.state, it.view, it.choice, it.wanted) if it.choice is not None else None


RULES = (
    Rule("a request has just failed", "pause", _pause),
    Rule("the grant is due to be renewed", "keep it alive", _keep_alive),
    Rule("the view is too old, or a write may or may not have happened", "read the store again", _look),
    Rule("a record or a hold of ours lies beside the one to keep", "delete it", _tidy),
    Rule("we hold a subnet, and its record says what it should", "rest", _rest),
    Rule("we hold a subnet, and its record says something else", "write it again", _rewrite),
    Rule("another life of this node has our subnet", "wait until it is gone", _yield_to_other_self),
    Rule("this host is not fit, and nothing of ours is in use", "wait for the host", _wait_for_host),
    Rule("there is no grant", "ask for one", _ask_for_grant),
    Rule("claims are frozen", "wait for the thaw", _wait_for_thaw),
    Rule("a record of ours stands that may be used", "adopt it", _adopt),
    Rule("the config in the store is not the one in force", "wait for the config", _wait_for_config),
    Rule("all subnets are taken", "wait for one", _wait_for_subnet),
    Rule("this host is not fit, and ours is taken", "wait for the host", _wait_for_host_to_move),
    Rule("a subnet is free", "claim it", _claim),
)
"""What to do next, in the order of priority, once a view is there and no answer is awaited."""


def decide(state: KeeperState, now: float, chance: float) -> Command | Waiting | None:
    """Apply the first rule that applies; None if nothing is to be done."""
    if state.pending is not None or state.store_view is None or state.wanted is None:
        return None
    situation = Situation(state, state.store_view, state.wanted, now, chance)
    for rule in RULES:
        outcome = rule.find(situation)
        if outcome is not None:
            return None if isinstance(outcome, Rest) else outcome
    raise AssertionError("either a subnet is free or all are taken")


def _find_leftover(
    state: KeeperState, view: StoreView, own: list[LeaseRecord], kept: LeaseRecord | None
) -> Transaction | None:
    """Find what removes one record or hold of ours beside the one that we keep."""
    for lease in own:
        # never flannel's: by the address alone it may be another host's, behind the same NAT
        known = lease.attributes.node_id or lease.lease_id == state.lease_id
        if known and not lease.is_reservation and (kept is None or lease.subnet != kept.subnet):
            return release(lease)
    for hold in view.holds:
        needless = kept is not None and (hold.subnet != kept.subnet or not kept.is_reservation)
        if needless and is_ours(state, hold):
            return release_hold(hold)
    return None
