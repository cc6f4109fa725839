"""What must be true of every world that can be reached."""

from __future__ import annotations

import itertools
from functools import cache

from overlayd.core.leases.codec import format_hold_name, format_subnet_name
from overlayd.core.leases.keeper.state import KeeperState
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.addresses import Subnet
from support.model import store as stores
from support.model.interning import InternTable
from support.model.store import AbstractStore
from support.model.world import ModelWorld


class ModelInvariants:
    def __init__(self, parts: InternTable) -> None:
        self.parts = parts
        self.held = cache(self._held)
        self._fault = cache(self._find_fault)
        self._recorded = cache(self._is_recorded)

    def find_violation(self, world: ModelWorld) -> str | None:
        overwritten = self.parts.scenario.budget.overwrite > 0
        if not overwritten and (fault := self._fault(world.store)) is not None:
            return fault
        held = [(place, subnet) for place, number in enumerate(world.nodes) if (subnet := self.held(number))]
        for (place, subnet), (other, theirs) in itertools.combinations(held, 2):
            if subnet.overlaps(theirs):
                return f"node {place} holds {subnet} and node {other} holds {theirs}"
        if self.parts.scenario.recorded:
            for place, subnet in held:
                if not self._recorded(world.store, world.nodes[place]):
                    return f"node {place} holds {subnet}, and its record in the store does not say so"
        return None

    def _held(self, number: int) -> Subnet | None:
        """What this node believes to hold."""
        state = self.parts.nodes.values[number].keeper
        held = self.parts.rules.belief(state, 0.0) is Belief.HELD
        return state.held.subnet if held and state.held is not None else None

    def _find_fault(self, store: int) -> str | None:
        """What the daemon's own parser finds wrong with a record."""
        book = absorb_snapshot(RecordBook(), stores.snapshot(self.parts.stores.values[store]), asked_at=0)
        return next((problem.text for problem in book.book.problems(None)), None)

    def _is_recorded(self, store: int, node: int) -> bool:
        return is_recorded(self.parts.stores.values[store], self.parts.nodes.values[node].keeper)


def is_recorded(store: AbstractStore, state: KeeperState) -> bool:
    """Whether what this node believes to hold is on its living grant in the store: the record itself, or, of a
    reservation, the hold."""
    assert state.held is not None
    record, hold = (store.find(name(state.held.subnet)) for name in (format_subnet_name, format_hold_name))
    if record is None or record.create_revision != state.held.create_revision:
        return False
    shown = record if record.lease_id else hold
    return shown is not None and shown.lease_id == state.lease_id and store.has_grant(state.lease_id)
