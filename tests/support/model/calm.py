"""What becomes of a world when all faults are over: everyone does what is due, in turn, and time passes."""

from __future__ import annotations

from collections.abc import Sequence

from overlayd.core.keeper import Belief
from support.model.world import Budget, Model, World

TICKS = 12
"""Some TTLs: what is left over from before has to run out first."""
MOVES = 60
"""More than a node can have to do within one tick."""

_DUE = ("gets the answer", "the request arrives of", "looks at the store", "wakes up")


def find_stuck(model: Model, seen: Sequence[World], sample: int) -> World | None:
    """One of so many of these worlds from which not as many nodes come to hold a subnet as there is room for."""
    stride = max(1, len(seen) // sample)
    return next((world for world in seen[::stride] if not comes_to_rest(model, world)), None)


def comes_to_rest(model: Model, world: World) -> bool:
    budget = Budget(end=10**6)
    world = model.canonical(world._replace(budget=budget, backup=-1))
    for _ in range(TICKS):
        world = _next_tick(model, world)
    beliefs = [model.rules.belief(model.nodes.values[number].keeper, 0.0) for number in world.nodes]
    return beliefs.count(Belief.HELD) == min(len(beliefs), model.room(world))


def _next_tick(model: Model, world: World) -> World:
    """All that is due happens, then the time passes."""
    for _ in range(MOVES):
        after = _next_move(model, world)
        if after is None:
            break
        world = after
    return next(model.canonical(raw) for (what, _), raw in model.successors(world) if what == "time passes")


def _next_move(model: Model, world: World) -> World | None:
    """The first that changes anything: late requests, ends of leases, then the nodes."""
    moves = [(what, model.canonical(raw)) for (what, _), raw in model.successors(world)]
    for kind in ("a late request arrives", "the store ends lease", *_DUE):
        for what, after in moves:
            if what == kind and after != world:
                return after
    return None
