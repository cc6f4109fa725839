"""What the reconciler is asked for, and what it has to say after each pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from overlayd.core.kernel.driver import Failure, Operation, Scope, Verb
from overlayd.core.kernel.items import KernelState
from overlayd.core.kernel.retries import Retries
from overlayd.core.network.backend import DesiredState


@dataclass(frozen=True, slots=True)
class Target:
    """What to reach: the wish, what counts as ours beyond our devices, and whether the rest may be swept."""

    desired: DesiredState
    scope: Scope
    sweep: bool


@dataclass(frozen=True, slots=True)
class Counters:
    """What the reconciler has done since it was started: passes, operations by verb, and those refused."""

    passes: int = 0
    done: Mapping[Verb, int] = field(default_factory=dict)
    refused: Mapping[Verb, int] = field(default_factory=dict)

    def after_operations(self, outcomes: Mapping[Operation, Failure | None]) -> Counters:
        done = (operation.verb for operation, failure in outcomes.items() if failure is None)
        refused = (operation.verb for operation, failure in outcomes.items() if failure is not None)
        return Counters(self.passes, _sum(self.done, done), _sum(self.refused, refused))

    def after_pass(self) -> Counters:
        return Counters(self.passes + 1, self.done, self.refused)


def _sum(before: Mapping[Verb, int], verbs: Iterable[Verb]) -> Mapping[Verb, int]:
    return Counter(before) + Counter(verbs)


@dataclass(frozen=True, slots=True)
class Report:
    """How things stood after a pass, at `at` seconds of CLOCK_BOOTTIME.

    `trouble` is the reason why the kernel could not be observed, "" otherwise; `actual` is then stale.
    """

    at: float
    target: Target
    actual: KernelState
    retries: Retries
    trouble: str = ""
    counters: Counters = Counters()

    def is_reached(self, wanted: KernelState) -> bool:
        """Whether all of this part of the wish stands in the kernel."""
        return not self.trouble and wanted.items <= self.actual.items
