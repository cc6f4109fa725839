"""Finds two rates of a path: the highest that arrives, whatever is lost, and the highest with almost no loss.

The second is searched for; the first is the highest rate that arrived in any trial of that search.

The first trial sends as fast as the sender can.  If all of that arrives, the sender is the limit.  Otherwise the
rate is between 0 and what was sent then, and each further trial halves the rest by its geometric mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 0.01
"""The share of loss that counts as none: on a machine with other work, a queue of a few hundred packets overflows
now and then at any rate."""
LOWEST = 1 / 2
"""Share of the rate that arrived at full speed, where the search begins: an overloaded path carries less than it
could."""
CLOSE_ENOUGH = 1.04
"""Ratio of the lowest rate with loss to the highest without, at which the search ends."""
FULL_SPEED = 0.0
"""Stands for a sender without a limit."""


@dataclass(frozen=True)
class Trial:
    """A trial: `asked` is the rate in datagrams a second, or FULL_SPEED; `sent` and `received` are counts."""

    asked: float
    sent: int
    received: int
    seconds: float

    @property
    def sent_rate(self) -> float:
        return self.sent / self.seconds

    @property
    def received_rate(self) -> float:
        return self.received / self.seconds

    @property
    def is_clean(self) -> bool:
        return self.received >= (1 - TOLERANCE) * self.sent > 0


def find_next(trials: Sequence[Trial], most: int) -> float | None:
    """Choose the rate to try next; None when enough is known, or `most` trials were made."""
    if not trials:
        return FULL_SPEED
    first = trials[0]
    if len(trials) >= most or first.is_clean:
        return None
    below = max([lossless_rate(trials), first.received_rate * LOWEST, 1.0])
    above = min(trial.sent_rate for trial in trials if not trial.is_clean)
    if above <= below * CLOSE_ENOUGH:
        return None
    return float((below * above) ** 0.5)


def highest_rate(trials: Sequence[Trial]) -> float:
    """Return the highest rate that arrived in any trial."""
    return max(trial.received_rate for trial in trials)


def lossless_rate(trials: Sequence[Trial]) -> float:
    """Return the highest rate that arrived without loss; 0 if none did."""
    return max((trial.received_rate for trial in trials if trial.is_clean), default=0.0)
