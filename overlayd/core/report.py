"""What the reconciler is asked for, and what it has to say after each pass."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.backend import Wish
from overlayd.core.dataplane import Scope
from overlayd.core.kernel import KernelState
from overlayd.core.retries import Retries


@dataclass(frozen=True, slots=True)
class Aim:
    """What to reach: the wish, what counts as ours beyond our devices, and whether the rest may be swept."""

    wish: Wish
    scope: Scope
    sweep: bool


@dataclass(frozen=True, slots=True)
class Report:
    """How things stood after a pass, at `at` seconds of CLOCK_BOOTTIME.

    `trouble` is the reason why the kernel could not be observed, "" otherwise; `actual` is then stale.
    """

    at: float
    aim: Aim
    actual: KernelState
    retries: Retries
    trouble: str = ""

    def is_reached(self, wanted: KernelState) -> bool:
        """Whether all of this part of the wish stands in the kernel."""
        actual = self.actual.by_key
        return not self.trouble and all(actual.get(key) == item for key, item in wanted.by_key.items())
