"""How soon a pass may follow the one before it: at once after a quiet time, ever later in a burst of changes.

So a lone change reaches the kernel without delay, and batches grow with the load.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LAST = 0.002, 0.25
"""Seconds between the first change after a quiet time and its pass, and what the doubling ends at."""
QUIET = 0.5
"""Seconds without a change after which the pace starts again."""
SHARE = 4.0
"""A pass is followed by a pause of so many times its own length: passes take a fifth of a core at most."""
PAUSE_MAX = 0.5
"""Seconds that a change waits for its pass at most, however long passes take."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`gap` is the pause before the next pass, in seconds; `ended` when the last pass did."""

    gap: float = FIRST
    ended: float = float("-inf")

    def pause(self, now: float) -> float:
        """Tell how long a change that came at `now` waits for its pass, in seconds."""
        return FIRST if now - self.ended > QUIET else self.gap

    def after_pass(self, began: float, ended: float) -> Pace:
        """Return the pace after a pass that was begun and ended at these instants."""
        gap = FIRST if began - self.ended > QUIET else min(self.gap * 2, LAST)
        return Pace(min(max(gap, SHARE * (ended - began)), PAUSE_MAX), ended)
