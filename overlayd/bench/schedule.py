"""Whose turn it is: A B A B, so that a slow minute of the machine meets every mode."""

from __future__ import annotations

from overlayd.bench.model import BenchPlan, Turn


def turns(plan: BenchPlan) -> tuple[Turn, ...]:
    """All modes on one wire side by side; every second round in the reverse order, so that nobody always comes
    after the same other."""
    found: list[Turn] = []
    for number in range(plan.rounds):
        modes = plan.modes if number % 2 == 0 else tuple(reversed(plan.modes))
        found += [Turn(number, wire, mode) for wire in plan.wires for mode in modes]
    return tuple(found)
