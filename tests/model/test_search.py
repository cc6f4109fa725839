"""Every state that a few keepers can reach is looked at: none breaks the promise, and in calm all get a subnet.

What runs is the daemon's own step function.  `make model` searches further.
"""

from __future__ import annotations

import pytest

from overlayd.core.leases.keeper import claimer, state
from support.model.liveness import find_stuck
from support.model.model import Model
from support.model.scenarios import EVERYDAY, LONG, RESTORED
from support.model.search import search
from support.model.trace_printer import describe, print_trace
from support.model.world import ModelScenario

AT_LEAST = 100_000
SAMPLE = 5
"""In larger worlds one state of so many is followed until it comes to rest."""


def prove(scenario: ModelScenario, every: int = 1) -> int:
    """The number of states, after all of them were seen and one of `every` has come to rest."""
    model = Model(scenario)
    assert model.rules.step is claimer.step
    assert model.rules.belief is state.belief
    found = search(model)
    assert found.violation is None, print_trace(model, found)
    assert found.complete
    stuck = find_stuck(model, found.seen[::every])
    assert stuck is None, describe(model, stuck)
    print(f"{scenario.name}: {found.states} states, {found.depth} deep")
    return found.states


def test_no_state_breaks_the_promise() -> None:
    assert sum(map(prove, EVERYDAY)) > AT_LEAST


@pytest.mark.long
@pytest.mark.parametrize("scenario", LONG, ids=lambda scenario: scenario.name)
def test_no_state_breaks_the_promise_in_larger_worlds(scenario: ModelScenario) -> None:
    assert prove(scenario, SAMPLE) > 0


def test_a_restored_store_in_which_claims_are_frozen_breaks_nothing() -> None:
    model = Model(RESTORED)
    found = search(model)
    assert found.violation is None, print_trace(model, found)
    assert found.complete
