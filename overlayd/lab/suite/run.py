"""Running checks on a stage, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from overlayd.lab.suite.bench import CannotShow, Limits
from overlayd.lab.suite.catalogue import Check
from overlayd.lab.suite.outcome import NotApplicable, Report, Result
from overlayd.lab.suite.stage import Stage


async def run(
    stage: Stage,
    checks: Iterable[Check],
    limits: Limits,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Report:
    """What came of all these checks; `on_result` hears of each as soon as it is done."""
    results = []
    for check in checks:
        result = await run_check(stage, check, limits)
        results.append(result)
        on_result(result)
    return Report(stage.spec.name, stage.spec.backend, tuple(results))


async def run_check(stage: Stage, check: Check, limits: Limits) -> Result:
    pairs = check.pairs(stage)
    if not pairs:
        return Result(check.name, check.title, {}, NotApplicable(f"needs {check.needs}"))
    began = trio.current_time()
    try:
        found = await check.ask(stage, pairs, limits)
    except CannotShow as reason:
        return Result(check.name, check.title, {}, NotApplicable(str(reason)))
    outcomes = {(pair.source.name, pair.target.name): found[pair] for pair in pairs}
    return Result(check.name, check.title, outcomes, seconds=trio.current_time() - began)
