"""Breadth-first search, so the first violation that is found has a shortest trace."""

from __future__ import annotations

from dataclasses import dataclass

from support.model.model import Model
from support.model.world import Label, ModelWorld


@dataclass(frozen=True)
class Found:
    """`complete`: every reachable state was seen."""

    states: int
    depth: int
    complete: bool
    violation: str | None
    trace: tuple[tuple[Label, ModelWorld], ...]
    seen: tuple[ModelWorld, ...] = ()


def search(model: Model, at_most: int = 10**9) -> Found:
    start = model.initial()
    came_from: dict[ModelWorld, ModelWorld | None] = {start: None}
    layer, depth = [start], 0
    if (violation := model.find_violation(start)) is not None:
        return Found(1, 0, False, violation, ())
    while layer:
        after: list[ModelWorld] = []
        depth += 1
        for world in layer:
            for _, raw in model.successors(world):
                new = model.canonical(raw)
                if new in came_from:
                    continue
                came_from[new] = world
                if (violation := model.find_violation(new)) is not None:
                    return Found(len(came_from), depth, False, violation, _trace(model, came_from, new))
                if len(came_from) >= at_most:
                    return Found(len(came_from), depth, False, None, (), tuple(came_from))
                after.append(new)
        layer = after
    return Found(len(came_from), depth, True, None, (), tuple(came_from))


def _trace(
    model: Model, came_from: dict[ModelWorld, ModelWorld | None], last: ModelWorld
) -> tuple[tuple[Label, ModelWorld], ...]:
    """The way to `last`, played again with every node and number keeping its name."""
    path = [last]
    while (before := came_from[path[-1]]) is not None:
        path.append(before)
    path.reverse()
    world = path[0]
    steps: list[tuple[Label, ModelWorld]] = []
    for target in path[1:]:
        label, world = next(
            (label, raw) for label, raw in model.successors(world) if model.canonical(raw) == target
        )
        steps.append((label, world))
    assert model.find_violation(world) is not None, "only the canonical form breaks it"
    return tuple(steps)
