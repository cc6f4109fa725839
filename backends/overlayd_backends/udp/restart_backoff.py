"""How soon a datapath that died may be started again: at once if it lived long, else ever later."""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LAST = 1.0, 60.0
"""Seconds to pause after the second death in a row, and what the doubling ends at."""
LONG = 60.0
"""Seconds after which a life counts as a good one."""


@dataclass(frozen=True, slots=True)
class RestartBackoff:
    """The fate of earlier runs: `short` of them in a row ended too soon, the last one at `ended`, by the
    clock of whoever counts, for the reason `trouble`, "" if none ever did."""

    short: int = 0
    ended: float = 0.0
    trouble: str = ""

    def after(self, began: float, ended: float, trouble: str) -> RestartBackoff:
        """Add one more run that ended so."""
        return RestartBackoff(self.short + 1 if ended - began < LONG else 1, ended, trouble)

    @property
    def next_at(self) -> float:
        """When the next one may begin."""
        return self.ended + (min(FIRST * 2.0 ** (self.short - 2), LAST) if self.short > 1 else 0.0)
