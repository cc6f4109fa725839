"""The loop that makes the kernel what is desired, and keeps it so.

It wakes for three reasons: something that is decided on changed, a driver told of a change, a deadline (resync,
retry) came.  It decides, observes what is in doubt, and applies the difference, until nothing is left to do.  At
a resync all is in doubt; else only the keys that an event named.  At most one pass is running and one is due:
whatever comes in meanwhile is one pass more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from overlayd.core.decide import Decision, Target
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, Operation, Scope, Verb
from overlayd.core.kernel.items import Key
from overlayd.core.kernel.pace import Pace
from overlayd.core.kernel.plan import Plan
from overlayd.core.kernel.retries import Retries
from overlayd.core.kernel.tracker import Tracker
from overlayd.core.report import Counters, Report
from overlayd.node.wakeup import WakeUp

RESYNC = 30.0
"""Seconds between two looks at the kernel when nothing else asks for one."""
ROUNDS = 4
"""How often one pass looks again after it changed something.  One operation can take others' objects with it
(a new MAC flushes the neighbours), so one round need not be enough; more than this is left to the next pass."""
KERNEL, RESYNCED, RETRY, START = "kernel", "resync", "retry", "start"
"""Reasons of passes; others come with whoever rings."""

log = logging.getLogger("overlayd.reconciler")


class Reconciler:
    """`decide` says what each pass wants; `finish` gets the report of each pass."""

    def __init__(
        self,
        driver: Driver,
        decide: Callable[[], Awaitable[Decision]],
        finish: Callable[[Report], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._driver = driver
        self._decide = decide
        self._finish = finish
        self._clock = clock
        self._retries = Retries()
        self._tracker = Tracker()
        self._doubts: set[Key] = set()
        """What may have changed since it was observed last."""
        self._all_in_doubt = True
        self._resynced_at = clock()
        self._scope = Scope()
        self._counters = Counters()
        self.wake_up = WakeUp()

    async def run(self) -> None:
        async with self._driver.watch(self._changed):
            pace, reasons = Pace(), frozenset({START})
            while True:
                began = self._clock()
                await self._pass(reasons)
                pace = pace.after_pass(began, self._clock())
                reasons = await self.wake_up.wait(self._until_next(began)) or frozenset({RETRY})
                await trio.sleep(pace.pause(self._clock()))
                reasons |= self.wake_up.take()

    def _changed(self, keys: Keys) -> None:
        """Remember what to observe in the next pass."""
        self._doubt(keys)
        self.wake_up.ring(KERNEL)

    def _doubt(self, keys: Keys) -> None:
        if keys is ALL:
            self._all_in_doubt = True
        else:
            self._doubts |= keys

    def _until_next(self, began: float) -> float:
        times = [self._resynced_at + RESYNC, self._retries.next_at(began)]
        return min(time for time in times if time is not None) - self._clock()

    async def _pass(self, reasons: frozenset[str]) -> None:
        if self._clock() >= self._resynced_at + RESYNC:
            self._all_in_doubt, reasons = True, (reasons - {RETRY}) | {RESYNCED}
        if self._all_in_doubt:
            self._resynced_at = self._clock()
        began = self._clock()
        decision, trouble = await self._decide(), ""
        if decision.target is not None:
            trouble = await self._reach(decision.target)
        self._counters = self._counters.after_pass(reasons, self._clock() - began)
        missing = frozenset(self._tracker.differing & self._tracker.desired.keys())
        report = Report(self._clock(), decision, missing, self._retries, trouble, self._counters)
        await self._finish(report)

    async def _reach(self, target: Target) -> str:
        """Apply what is missing; why the kernel could not be observed, "" if it was."""
        self._tracker.want(target.desired)
        if target.scope != self._scope:
            self._scope, self._all_in_doubt = target.scope, True
        try:
            for _ in range(ROUNDS):
                await self._observe()
                if not await self._carry_out(self._tracker.plan(sweep=target.sweep)):
                    break
        except OSError as error:
            self._all_in_doubt = True
            return f"the kernel can't be asked: {error}"
        return ""

    async def _observe(self) -> None:
        """Look at what is in doubt, and at nothing else."""
        keys = ALL if self._all_in_doubt else frozenset(self._doubts)
        self._doubts, self._all_in_doubt = set(), False
        if keys is ALL or keys:
            self._tracker.observed(await self._driver.observe(self._scope, keys), keys)

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
        self._take_in(outcomes)
        self._record(outcomes)
        self._counters = self._counters.after_operations(outcomes)
        self._retries = self._retries.after(outcomes, {o.item.key for o in plan}, self._clock())
        return any(failure is None for failure in outcomes.values())

    def _take_in(self, outcomes: dict[Operation, Failure | None]) -> None:
        """Believe what was acknowledged, and look again at what was not.

        What contains other items moves them with it, in ways that only the kernel knows: then all is in doubt.
        """
        self._tracker.applied(operation for operation, failure in outcomes.items() if failure is None)
        refused = frozenset(operation.item.key for operation, failure in outcomes.items() if failure is not None)
        moved = any(self._tracker.contains_others(operation.item) for operation in outcomes)
        self._doubt(ALL if moved else refused)

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
