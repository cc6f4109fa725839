"""When a refused kernel operation may be tried again: sooner if it is new, later the more often it failed.

Each key has its own clock, so one entry that the kernel refuses for ever never delays another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlayd.core.kernel.driver import Failure, Operation
from overlayd.core.kernel.items import Key

FIRST, LAST = 1.0, 60.0
"""Seconds before the first retry, and what the doubling ends at."""


@dataclass(frozen=True, slots=True)
class FailedOperation:
    """An operation that failed `times` in a row; not to be tried again before `retry_at`."""

    operation: Operation
    failure: Failure
    times: int
    retry_at: float


@dataclass(frozen=True, slots=True)
class Retries:
    failed_operations: Mapping[Key, FailedOperation] = field(default_factory=dict)

    def is_due(self, operation: Operation, now: float) -> bool:
        """Tell whether to try: always, if this very operation has not failed before."""
        failed_operation = self.failed_operations.get(operation.item.key)
        return (
            failed_operation is None or failed_operation.operation != operation or now >= failed_operation.retry_at
        )

    def after(self, outcomes: Mapping[Operation, Failure | None], wanted: set[Key], now: float) -> Retries:
        """Take in the outcomes of a pass; keys that no plan wants changed any more are forgotten."""
        kept = {key: failed_operation for key, failed_operation in self.failed_operations.items() if key in wanted}
        for operation, failure in outcomes.items():
            key = operation.item.key
            before = kept.pop(key, None)
            if failure is not None:
                times = before.times + 1 if before is not None and before.operation == operation else 1
                pause = min(FIRST * 2.0 ** (times - 1), LAST)
                kept[key] = FailedOperation(operation, failure, times, now + pause)
        return Retries(kept)

    def next_at(self, after: float) -> float | None:
        """Tell when the next retry is due; those due at `after`, the time of the last pass, had their chance
        then."""
        times = (
            failed_operation.retry_at
            for failed_operation in self.failed_operations.values()
            if failed_operation.retry_at > after
        )
        return min(times, default=None)
