"""The loop that makes the kernel what the view asks for, and keeps it so.

It wakes for three reasons: something in the view changed, the kernel hinted at a change, a deadline (resync,
retry) came.  Whatever woke it, it does the same: state the whole wish, observe the whole reality, apply the
difference, and look again until nothing is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from overlayd.core.kernel.driver import Driver, Failure, Hints, Operation, Verb
from overlayd.core.kernel.items import KernelState, Key
from overlayd.core.kernel.plan import Plan, diff
from overlayd.core.kernel.report import Counters, Report, Target
from overlayd.core.kernel.retries import Retries
from overlayd.node.wakeup import WakeUp

RESYNC = 30.0
"""Seconds between two looks at the kernel when nothing else asks for one."""
SETTLE = 0.02
"""Seconds to wait after a hint, so that a burst of changes is answered once."""
ROUNDS = 4
"""How often one pass looks again after it changed something.  One operation can take others' objects with it
(a new MAC flushes the neighbours), so one round need not be enough; more than this is left to the next pass."""

log = logging.getLogger("overlayd.reconciler")


class Reconciler:
    """`target` says what to reach, None while there is nothing yet; `publish` gets a report of each pass."""

    def __init__(
        self,
        driver: Driver,
        target: Callable[[], Awaitable[Target | None]],
        publish: Callable[[Report], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._driver = driver
        self._target = target
        self._publish = publish
        self._clock = clock
        self._retries = Retries()
        self._actual = KernelState()
        self._counters = Counters()
        self.wake_up = WakeUp()

    async def run(self) -> None:
        async with self._driver.changes() as hints, trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, hints)
            while True:
                began = self._clock()
                target = await self._target()
                if target is not None:
                    await self._publish(await self._reach(target))
                await self.wake_up.wait(self._until_next(began))
                await trio.sleep(SETTLE)

    async def _listen(self, hints: Hints) -> None:
        while True:
            await hints.wait()
            self.wake_up.ring()

    def _until_next(self, began: float) -> float:
        retry_at = self._retries.next_at(began)
        return RESYNC if retry_at is None else min(RESYNC, retry_at - self._clock())

    async def _reach(self, target: Target) -> Report:
        desired, trouble = target.desired.kernel, ""
        try:
            for _ in range(ROUNDS):
                self._actual = await self._driver.observe(target.scope)
                plan = diff(desired, self._actual, sweep=target.sweep)
                if not await self._carry_out(plan):
                    break
        except OSError as error:
            trouble = f"the kernel can't be asked: {error}"
        self._counters = self._counters.after_pass()
        return Report(self._clock(), target, self._actual, self._retries, trouble, self._counters)

    async def _carry_out(self, plan: Plan) -> bool:
        """Apply what is due; whether anything was changed."""
        outcomes: dict[Operation, Failure | None] = {}
        missing: set[Key] = set()
        for stage in plan.stages:
            ready = []
            for operation in stage:
                if operation.needs & missing or not self._retries.is_due(operation, self._clock()):
                    missing.add(operation.item.key)
                else:
                    ready.append(operation)
            if not ready:
                continue
            for operation, failure in zip(ready, await self._driver.apply(ready), strict=True):
                outcomes[operation] = failure
                if failure is not None and operation.verb is not Verb.REMOVE:
                    missing.add(operation.item.key)
        self._record(outcomes)
        self._counters = self._counters.after_operations(outcomes)
        self._retries = self._retries.after(outcomes, {o.item.key for o in plan}, self._clock())
        return any(failure is None for failure in outcomes.values())

    def _record(self, outcomes: dict[Operation, Failure | None]) -> None:
        for operation, failure in outcomes.items():
            if failure is None:
                log.debug("kernel changed", extra={"operation": str(operation)})
                continue
            before = self._retries.failed_operations.get(operation.item.key)
            if before is None or before.failure != failure:
                log.warning("kernel refused", extra={"operation": str(operation), "reason": failure.reason})
        done = [operation.verb for operation, failure in outcomes.items() if failure is None]
        if done:
            log.info("kernel updated", extra={verb.value: count for verb in Verb if (count := done.count(verb))})
