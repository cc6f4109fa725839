"""Makes a failing episode small: fewer faults, and nodes, that still break the same promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from overlayd.testing.simulation.scenario import Fault, Scenario


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """The smallest that was found: halves of the faults are left out, then quarters, then single ones.

    `fails` says whether an episode still breaks the promise; it is true of `scenario` itself.
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
    busy = max((fault.node for fault in scenario.faults), default=1)
    for nodes in range(busy, scenario.nodes):
        if fails(fewer := replace(scenario, nodes=nodes)):
            return fewer
    return scenario


def _find_without(scenario: Scenario, size: int, fails: Callable[[Scenario], bool]) -> Scenario | None:
    for start in range(0, len(scenario.faults), size):
        kept: tuple[Fault, ...] = scenario.faults[:start] + scenario.faults[start + size :]
        if fails(smaller := replace(scenario, faults=kept)):
            return smaller
    return None
