"""Two rates of a path: the most that arrives, whatever is lost, and the highest at which nearly nothing is lost.

The second is searched for; the first shows on the way, as the search passes by the path's capacity.

The first trial sends as fast as the sender can.  If that gets through, the sender is the limit.  Otherwise the
rate lies between nothing and what was sent then, and each further trial halves what is left, in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 0.01
"""How much may be lost of what counts as no loss: on a machine that has other work, too, a queue of a few hundred
packets overflows now and then at any rate."""
LOWEST = 1 / 2
"""Of what got through at full speed: where the search begins from below, as an overrun path carries less than it
could."""
CLOSE_ENOUGH = 1.04
"""Between the highest rate without loss and the lowest with loss."""
FULL_SPEED = 0.0
"""Stands for a sender without brakes."""


@dataclass(frozen=True)
class Trial:
    """`asked` is the rate in datagrams a second, or FULL_SPEED; `sent` and `received` are counts."""

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
    """The rate to try next; None when enough is known, or `most` trials were made."""
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
    """The most that arrived in any trial."""
    return max(trial.received_rate for trial in trials)


def lossless_rate(trials: Sequence[Trial]) -> float:
    """The highest rate that got through clean; 0 if none did."""
    return max((trial.received_rate for trial in trials if trial.is_clean), default=0.0)
