"""What is told of an episode that broke a promise: how little is needed for it, and what happened, drawn."""

from __future__ import annotations

from overlayd.testing.diagram import draw
from overlayd.testing.simulation.episode import Episode
from overlayd.testing.simulation.run import LOOK, Outcome, run_episode
from overlayd.testing.simulation.shrink import shrink
from overlayd.testing.trace import Entry, Kind


def explain(outcome: Outcome, look: float = LOOK) -> str:
    """Shrink the failing episode, and draw the last of what happened in it."""
    assert outcome.breach is not None
    promise = outcome.breach.promise

    def fails(episode: Episode) -> bool:
        breach = run_episode(episode, look).breach
        return breach is not None and breach.promise == promise

    smallest = run_episode(shrink(outcome.episode, fails), look)
    columns = [f"n{number}" for number in range(1, smallest.episode.nodes + 1)] + ["store"]
    told = [entry for entry in smallest.trace.entries if not _is_routine(entry)]
    return f"{smallest.breach}\n{smallest.episode}\nkeepalives that arrived are left out:\n\n{draw(told, columns)}"


def _is_routine(entry: Entry) -> bool:
    return entry.kind is Kind.MESSAGE and entry.text.startswith(("keepalive ", "alive "))
