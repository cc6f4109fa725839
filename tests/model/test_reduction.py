"""A world and its plain form can do the same: what `plain` and `canonical` leave out is never missed.

Walks at random, without ever leaving anything out, compare the two after each step.  The same walks find what
somebody might leave out as well, thinking that it makes no difference.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from overlayd.core.leases.keeper.state import KeeperState, StoreView
from support.model import symmetry
from support.model.model import Model
from support.model.reduction import plain
from support.model.scenarios import CROSSED, HALVES, ONE, PAIRS, TROUBLE, TWO
from support.model.world import Budget, ModelNode, ModelScenario, ModelWorld

WALKS = 30
FIRST, AFTER = 20, 25
"""Steps that bring a walk to where it begins to compare (at most), and steps in which it compares."""

ALL = TROUBLE._replace(faults=3, end=2, rewrite=1, configure=1)
SLOWLY = ModelScenario("everything, slowly", (TWO, HALVES), ALL)
ALONE = ModelScenario("alone", (TWO,), TROUBLE._replace(faults=3, crash=2, linger=2, end=2), nodes=1, brisk=True)
SCENARIOS = (
    SLOWLY,
    ALONE,
    ModelScenario("everything", (TWO, HALVES), ALL, brisk=True),
    ModelScenario("few subnets", (ONE, HALVES), ALL, brisk=True),
    ModelScenario("pairs", (PAIRS, CROSSED), ALL, brisk=True),
    ModelScenario(
        "reservations",
        (TWO,),
        ALL._replace(configure=0, reserve=3),
        nodes=2,
        reservable=("10.244.1.0/24", "10.244.2.0/24"),
        brisk=True,
    ),
    ModelScenario("a restored store", (ONE,), Budget(end=1, restore=1), nodes=2, recorded=False, brisk=True),
)


class Differ(AssertionError):
    """A world and its plain form that can't do the same."""


def walk_often(models: list[Model], times: int) -> None:
    for model in models:
        for seed in range(times):
            walk(model, random.Random(seed))


def walk(model: Model, chance: random.Random) -> None:
    world = model.initial()
    for _ in range(chance.randrange(FIRST)):
        world = model.canonical(_any(model, world, chance))
    for _ in range(AFTER):
        compare(model, world)
        world = _any(model, world, chance)


def _any(model: Model, world: ModelWorld, chance: random.Random) -> ModelWorld:
    """Every kind of move is as likely as any other."""
    kinds: dict[str, list[ModelWorld]] = {}
    for (what, _), after in model.successors(world):
        kinds.setdefault(what, []).append(after)
    return chance.choice(kinds[chance.choice(list(kinds))])


def compare(model: Model, world: ModelWorld) -> None:
    same = model.canonical(world)
    if (model.find_violation(world) is None) != (model.find_violation(same) is None):
        raise Differ
    if _outcomes(model, world, same) != _outcomes(model, same, same):
        raise Differ


def _outcomes(model: Model, world: ModelWorld, same: ModelWorld) -> set[ModelWorld]:
    """What may become of a world, but that nothing happens except that some fault can happen less often."""
    found = set()
    for _, raw in model.successors(world):
        after = model.canonical(raw)
        if after != model.canonical(same._replace(budget=after.budget)):
            found.add(after)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_world_and_its_plain_form_can_do_the_same(scenario: ModelScenario) -> None:
    walk_often([Model(scenario)], WALKS)


def _forgets(change: Callable[[KeeperState], KeeperState]) -> Callable[[ModelNode, ModelScenario], ModelNode]:
    def too_plain(node: ModelNode, scenario: ModelScenario) -> ModelNode:
        node = plain(node, scenario)
        return replace(node, keeper=change(node.keeper))

    return too_plain


def _seeing(**changes: object) -> Callable[[KeeperState], KeeperState]:
    def change(state: KeeperState) -> KeeperState:
        seen: StoreView | None = state.store_view
        return replace(state, store_view=seen and replace(seen, **changes))  # type: ignore[arg-type]

    return change


TOO_PLAIN = {
    "what it has to look for": _forgets(lambda state: replace(state, commit_outcome_unknown=False)),
    "how new a view must be": _forgets(lambda state: replace(state, need_revision=0)),
    "how long it may believe": _forgets(lambda state: replace(state, until=10.0)),
    "that it is in a later life": _forgets(lambda state: replace(state, has_held=False)),
    "which subnet it had": _forgets(lambda state: replace(state, previous=None)),
    "which subnets are taken": _forgets(_seeing(taken=())),
    "which leases there are": _forgets(_seeing(leases=())),
    "which config it saw": _forgets(_seeing(config_revision=0)),
}


@pytest.mark.parametrize("too_plain", TOO_PLAIN.values(), ids=TOO_PLAIN)
def test_what_is_still_needed_is_missed(too_plain: Callable[[ModelNode, ModelScenario], ModelNode]) -> None:
    models = [Model(scenario, plain=too_plain) for scenario in (SLOWLY, ALONE)]
    with pytest.raises(Differ):
        walk_often(models, 200)


def test_a_late_request_that_can_take_effect_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetry, "is_in_vain", lambda store, command: True)
    with pytest.raises(Differ):
        walk_often([Model(SLOWLY)], WALKS)
