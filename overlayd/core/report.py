"""What a pass has to say when it is over; it carries the Decision that it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from overlayd.core.decide import Decision, Publication
from overlayd.core.kernel.driver import Failure, Operation, Verb
from overlayd.core.kernel.items import KernelState, Key
from overlayd.core.kernel.retries import Retries
from overlayd.core.leases.tenure import Tenure

T = TypeVar("T")

BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.5)
"""Seconds: the buckets in which passes are counted by their duration."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The reconciler's work since its start: passes by reason, operations by verb, and those refused.

    A pass with several reasons counts once for each of them.  `seconds` is how long passes took in all, and
    `within` how many of them took no longer than each of BOUNDS.
    """

    passes: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    within: tuple[int, ...] = (0,) * len(BOUNDS)
    done: Mapping[Verb, int] = field(default_factory=dict)
    refused: Mapping[Verb, int] = field(default_factory=dict)

    def after_operations(self, outcomes: Mapping[Operation, Failure | None]) -> Counters:
        done = (operation.verb for operation, failure in outcomes.items() if failure is None)
        refused = (operation.verb for operation, failure in outcomes.items() if failure is not None)
        return replace(self, done=_sum(self.done, done), refused=_sum(self.refused, refused))

    def after_pass(self, reasons: Iterable[str], took: float) -> Counters:
        """Count a pass that took so many seconds."""
        return replace(
            self,
            passes=self.passes + 1,
            reasons=_sum(self.reasons, reasons),
            seconds=self.seconds + took,
            within=tuple(count + (took <= bound) for count, bound in zip(self.within, BOUNDS, strict=True)),
        )


def _sum(before: Mapping[T, int], more: Iterable[T]) -> Mapping[T, int]:
    return Counter(before) + Counter(more)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a pass, at `at` seconds of CLOCK_BOOTTIME.

    `missing` are the keys of what is desired and not in the kernel just so.  `trouble` is the reason why the
    kernel could not be observed, "" otherwise; `missing` is then stale.
    """

    at: float
    decision: Decision
    missing: frozenset[Key]
    retries: Retries
    trouble: str = ""
    counters: Counters = field(default_factory=Counters)

    def is_reached(self, wanted: KernelState) -> bool:
        """Tell whether all of this part of the desired state stands in the kernel."""
        return not self.trouble and self.missing.isdisjoint(wanted.by_key.keys())

    @property
    def is_base_reached(self) -> bool:
        """Tell whether the kernel has what the node needs whoever its peers are."""
        target = self.decision.target
        return target is not None and self.is_reached(target.desired.base)


def publication(report: Report, tenure: Tenure) -> Publication:
    """Decide what becomes of subnet.env and the CNI configuration after a pass.

    A subnet is published only if this very pass has put it into the kernel, and it is still this node's.
    """
    decision = report.decision
    if decision.publication is not Publication.PUBLISH:
        return decision.publication
    own = decision.view.own if decision.view is not None else None
    still_ours = tenure.served is not None and tenure.served.subnet == own
    return Publication.PUBLISH if still_ours and report.is_base_reached else Publication.KEEP
