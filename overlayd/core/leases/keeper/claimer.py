"""The keeper's step, and the keeper as the rest of the node has it: a Claimer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlayd.core.leases.keeper.decisions import decide
from overlayd.core.leases.keeper.recognition import absorb
from overlayd.core.leases.keeper.state import AskCommit, Command, Event, KeeperState
from overlayd.core.leases.tenure import Tenure, Waiting


def step(state: KeeperState, event: Event, now: float, chance: float) -> tuple[KeeperState, Command | None]:
    """Absorb one event, then decide.  0 ≤ `chance` < 1 is a random number."""
    state = absorb(state, event, now, chance)
    outcome = decide(state, now, chance)
    if isinstance(outcome, Waiting):
        return replace(state, waits_for=outcome), None
    waits_for = state.waits_for if state.held is None and not isinstance(outcome, AskCommit) else None
    return replace(state, waits_for=waits_for, pending=outcome or state.pending), outcome


def wake_at(state: KeeperState, stepped_at: float) -> float | None:
    """Tell when the next Tick is due, None if only an event can bring anything new.

    What was due at `stepped_at`, the time of the last step, has had its chance then.
    """
    times = [state.retry_at] if state.failures else []
    if state.held is not None:
        times.append(state.until)
    if state.lease_id:
        times.append(max(state.renew_at, state.retry_at) if state.failures else state.renew_at)
    return min((time for time in times if time > stepped_at), default=None)


@dataclass(frozen=True, slots=True)
class EtcdClaimer:
    """See overlayd.core.leases.claimer.Claimer."""

    state: KeeperState

    @property
    def tenure(self) -> Tenure:
        return self.state.tenure

    def step(self, event: Event, now: float, chance: float) -> tuple[EtcdClaimer, Command | None]:
        state, command = step(self.state, event, now, chance)
        return EtcdClaimer(state), command

    def wake_at(self, stepped_at: float) -> float | None:
        return wake_at(self.state, stepped_at)
