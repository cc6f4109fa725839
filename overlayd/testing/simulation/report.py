"""Explains a scenario that broke an invariant: the smallest one that does, and its last steps, drawn."""

from __future__ import annotations

from overlayd.testing.diagram import draw
from overlayd.testing.simulation.run import LOOK, ScenarioOutcome, run_scenario
from overlayd.testing.simulation.scenario import Scenario
from overlayd.testing.simulation.shrink import shrink
from overlayd.testing.trace import TraceEntry, TraceKind


def explain(outcome: ScenarioOutcome, look: float = LOOK) -> str:
    """Shrink the failing scenario, and draw its last steps."""
    assert outcome.breach is not None
    invariant = outcome.breach.invariant

    def fails(scenario: Scenario) -> bool:
        breach = run_scenario(scenario, look).breach
        return breach is not None and breach.invariant == invariant

    smallest = run_scenario(shrink(outcome.scenario, fails), look)
    columns = [f"n{number}" for number in range(1, smallest.scenario.nodes + 1)] + ["store"]
    shown = [entry for entry in smallest.trace.entries if not _is_routine(entry)]
    return (
        f"{smallest.breach}\n{smallest.scenario}\nkeepalives that arrived are left out:\n\n{draw(shown, columns)}"
    )


def _is_routine(entry: TraceEntry) -> bool:
    return entry.kind is TraceKind.MESSAGE and entry.text.startswith(("keepalive ", "alive "))
