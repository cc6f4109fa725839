"""Shrinks a failing scenario to fewer faults and nodes that still break the same invariant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from overlayd.testing.simulation.scenario import Fault, Scenario


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Leave out halves of the faults, then quarters, then single ones, and nodes; the smallest that still fails.

    `fails` tells whether a scenario still breaks the invariant; it does for `scenario` itself.
    """
    size = max(1, len(scenario.faults) // 2)
    while True:
        smaller = _find_without(scenario, size, fails)
        if smaller is not None:
            scenario = smaller
        elif size > 1:
            size //= 2
        else:
            break
    highest = max((fault.node for fault in scenario.faults), default=1)
    for nodes in range(highest, scenario.nodes):
        if fails(fewer := replace(scenario, nodes=nodes)):
            return fewer
    return scenario


def _find_without(scenario: Scenario, size: int, fails: Callable[[Scenario], bool]) -> Scenario | None:
    for start in range(0, len(scenario.faults), size):
        kept: tuple[Fault, ...] = scenario.faults[:start] + scenario.faults[start + size :]
        if fails(smaller := replace(scenario, faults=kept)):
            return smaller
    return None
