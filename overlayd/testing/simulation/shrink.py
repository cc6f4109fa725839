"""Makes a failing episode small: fewer faults, and nodes, that still break the same promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from overlayd.testing.simulation.episode import Episode, Fault


def shrink(episode: Episode, fails: Callable[[Episode], bool]) -> Episode:
    """The smallest that was found: halves of the faults are left out, then quarters, then single ones.

    `fails` says whether an episode still breaks the promise; it is true of `episode` itself.
    """
    size = max(1, len(episode.faults) // 2)
    while True:
        smaller = _find_without(episode, size, fails)
        if smaller is not None:
            episode = smaller
        elif size > 1:
            size //= 2
        else:
            break
    busy = max((fault.node for fault in episode.faults), default=1)
    for nodes in range(busy, episode.nodes):
        if fails(fewer := replace(episode, nodes=nodes)):
            return fewer
    return episode


def _find_without(episode: Episode, size: int, fails: Callable[[Episode], bool]) -> Episode | None:
    for start in range(0, len(episode.faults), size):
        kept: tuple[Fault, ...] = episode.faults[:start] + episode.faults[start + size :]
        if fails(smaller := replace(episode, faults=kept)):
            return smaller
    return None
