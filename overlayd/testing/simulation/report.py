"""What is told of an episode that broke a promise: how little is needed for it, and what happened, drawn."""

from __future__ import annotations

from overlayd.testing.diagram import draw
from overlayd.testing.simulation.run import LOOK, ScenarioOutcome, run_scenario
from overlayd.testing.simulation.scenario import Scenario
from overlayd.testing.simulation.shrink import shrink
from overlayd.testing.trace import TraceEntry, TraceKind


def explain(outcome: ScenarioOutcome, look: float = LOOK) -> str:
    """Shrink the failing episode, and draw the last of what happened in it."""
    assert outcome.breach is not None
    promise = outcome.breach.promise

    def fails(scenario: Scenario) -> bool:
        breach = run_scenario(scenario, look).breach
        return breach is not None and breach.promise == promise

    smallest = run_scenario(shrink(outcome.scenario, fails), look)
    columns = [f"n{number}" for number in range(1, smallest.scenario.nodes + 1)] + ["store"]
    told = [entry for entry in smallest.trace.entries if not _is_routine(entry)]
    return (
        f"{smallest.breach}\n{smallest.scenario}\nkeepalives that arrived are left out:\n\n{draw(told, columns)}"
    )


def _is_routine(entry: TraceEntry) -> bool:
    return entry.kind is TraceKind.MESSAGE and entry.text.startswith(("keepalive ", "alive "))
