"""The nouns of the checker: a world, its nodes, the faults that may still happen in it, and the scenario it is in.

A world is a tuple of small integers, each the number of a part (see `parts`): the store, the nodes, the late
requests under way ("ghosts"), the store's backup, and the budget of faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from overlayd.core.leases.keeper import claimer, state
from overlayd.core.leases.keeper.state import Command, Event, KeeperState, StoreView
from overlayd.core.leases.tenure import Belief
from support.model.renaming import NODES

TICK = 10.0
"""Seconds.  With a TTL of 30 or 40 s the keeper's own rules come out as whole ticks: a margin of one, and a
renewal due at every tick."""

Step = Callable[[KeeperState, Event, float, float], tuple[KeeperState, Command | None]]


class Budget(NamedTuple):
    """The remaining count of each of these; those before `end` together `faults` times, where that is less."""

    faults: int = 0
    lose: int = 0
    """A request does not arrive."""
    ambiguous: int = 0
    """A request takes effect and its answer is lost."""
    linger: int = 0
    """The sender gives up a request that takes effect later."""
    duplicate: int = 0
    """A keepalive takes effect twice, the second time later."""
    crash: int = 0
    """A node forgets all but its identity, and starts again; what it had under way still is."""
    slip: int = 0
    """A node's clock stands still for one tick."""
    lag: int = 0
    """A node decides on what the store was some time ago, though it was told later."""
    end: int = 0
    """The store ends a grant whose time has come."""
    rewrite: int = 0
    """A node's attributes change."""
    configure: int = 0
    """The next config takes effect."""
    reserve: int = 0
    """An operator reserves a subnet for a node, or takes the reservation away."""
    overwrite: int = 0
    """Somebody puts what no one can read over a lease, by hand and without its grant."""
    unfit: int = 0
    """A node's host turns unfit for a new subnet, or fit again."""
    misconfigure: int = 0
    """A config that is not sound takes effect."""
    restore: int = 0
    """The store is restored from the backup, claims are frozen."""
    ticks: int = 99
    """Time passes.  99: as long as it likes."""


FAULTS = ("lose", "ambiguous", "linger", "duplicate", "crash", "slip", "lag")
"""What is counted against `faults`."""


@dataclass(frozen=True, slots=True)
class ModelNode:
    """`answer` is on its way back; `age` is how long ago the outstanding request was sent, by this node's clock.
    All times in `keeper` are relative to now."""

    keeper: KeeperState
    answer: Event | None = None
    age: float = 0.0
    changed: bool = False
    unfit: bool = False
    """Its host may claim no new subnet."""
    kept: StoreView | None = None
    """A view of the store that this node was told of and has not looked at."""


@dataclass(frozen=True)
class ModelScenario:
    name: str
    configs: tuple[str, ...]
    budget: Budget
    ttl: int = 30
    nodes: int = NODES
    reserved: tuple[tuple[str, int], ...] = ()
    """Subnets reserved from the beginning, and for whom."""
    reservable: tuple[str, ...] = ()
    force: bool = False
    """Whether operators release what is in use."""
    by_hand: bool = False
    """Whether somebody deletes the keys of reservations with no care."""
    freeze: bool = True
    """Whether the operator who restores the store freezes claims, as the handbook says."""
    recorded: bool = True
    """Whether what a node holds must be in the store as well."""
    brisk: bool = False
    """Grants and keepalives are answered at once.  A node then believes more, and sooner, than it would if they
    took their time; and the worlds are fewer by far."""
    early_end: bool = False
    """The store may end a grant before its time."""
    idle_keepalive: bool = False
    """An old leader acknowledges keepalives that have no effect."""
    twins: bool = False
    """Two nodes have one identity."""

    @property
    def goes_back(self) -> bool:
        """Whether the store may give out again revisions that were given out before."""
        return self.budget.restore > 0


@dataclass(frozen=True)
class Rules:
    """The functions under test."""

    step: Step = claimer.step
    belief: Callable[[KeeperState, float], Belief] = state.belief


class ModelWorld(NamedTuple):
    store: int
    nodes: tuple[int, ...]
    ghosts: tuple[int, ...]
    backup: int
    budget: int


Label = tuple[str, int]
"""What happens, and to whom (a node, a lease id)."""
