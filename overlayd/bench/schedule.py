"""The order of turns: A B A B, so that a slow minute of the machine affects every mode."""

from __future__ import annotations

from overlayd.bench.model import BenchPlan, Turn


def turns(plan: BenchPlan) -> tuple[Turn, ...]:
    """List the turns: all modes on one wire in a row, in every second round in reverse order.

    So no mode always follows the same other one.
    """
    found: list[Turn] = []
    for number in range(plan.rounds):
        modes = plan.modes if number % 2 == 0 else tuple(reversed(plan.modes))
        found += [Turn(number, wire, mode) for wire in plan.wires for mode in modes]
    return tuple(found)
