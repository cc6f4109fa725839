"""What becomes of a world when all faults are over: everyone does what is due, in turn, and time passes.

Then every node must come to hold a subnet, or wait for one honestly: it says so, and there is none to be had.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlayd.core.leases.keeper.state import AskGrant, AskKeepalive
from overlayd.core.leases.subnets import subnet_at
from overlayd.core.leases.tenure import Waiting
from support.model.model import Model
from support.model.world import Budget, ModelWorld

CALM = Budget(end=1)
"""No fault happens any more, but the store goes on ending leases, as often as their time comes."""

_DUE = (
    "a late request arrives",
    "the store ends lease",
    "gets the answer",
    "the request arrives of",
    "looks at the store",
    "wakes up",
)


def find_stuck(model: Model, worlds: Iterable[ModelWorld]) -> ModelWorld | None:
    """One of these worlds that doesn't come to rest."""
    rests: set[ModelWorld] = set()
    budget = model.parts.budgets.number(CALM)
    for world in worlds:
        path: dict[ModelWorld, None] = {}
        now = model.canonical(world._replace(budget=budget))
        while now not in rests and now not in path:
            path[now] = None
            now = _next(model, now)
        if now in path:  # from here on it goes round in a circle
            after = list(path)
            if not all(_is_at_rest(model, each) for each in after[after.index(now) :]):
                return world
        rests.update(path)
    return None


def _next(model: Model, world: ModelWorld) -> ModelWorld:
    """The first thing due that changes anything; if there is none, time passes."""
    moves = [(what, after._replace(budget=world.budget)) for (what, _), after in model.successors(world)]
    for kind in (*_DUE, "time passes"):
        for what, raw in moves:
            if what == kind and (after := model.canonical(raw)) != world:
                return after
    return world


def _is_at_rest(model: Model, world: ModelWorld) -> bool:
    return all(
        model.held(number) is not None or _waits_honestly(model, world, place)
        for place, number in enumerate(world.nodes)
    )


def _waits_honestly(model: Model, world: ModelWorld, place: int) -> bool:
    """Each subnet is held by another node, or reserved for it, or nobody knows whose it is; and the node says that
    all are taken.  Or the config is not sound, or its host not fit, and it says that."""
    parts, number = model.parts, world.nodes[place]
    seen = parts.view(world.store)
    in_use = [held for other in world.nodes if (held := model.held(other)) is not None]
    own = parts.nodes.values[number].keeper.node_id
    for lease in seen.leases:
        if lease.is_reservation and lease.attributes.node_id != own:
            in_use.append(lease.subnet)
    in_use += [lease.subnet for lease in seen.damaged]  # nobody knows whose they are
    every = (subnet_at(seen.config, nth) for nth in range(seen.config.capacity))
    is_full = all(any(subnet.overlaps(other) for other in in_use) for subnet in every)
    is_unfit = parts.nodes.values[number].unfit
    if not is_full and seen.config_is_current and not is_unfit:
        return False
    if parts.nodes.values[number].keeper.pending is None:
        number = parts.deliver(number, "news", world.store)[0]
    state = parts.nodes.values[number].keeper
    reasons = {Waiting.SUBNET if seen.config_is_current else Waiting.CONFIG}
    if is_unfit:
        reasons.add(Waiting.HOST)
    return state.waits_for in reasons or isinstance(state.pending, AskGrant | AskKeepalive)
