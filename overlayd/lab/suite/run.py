"""Runs checks on a topology, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from overlayd.lab.suite.catalogue import Check
from overlayd.lab.suite.outcome import CheckNotApplicable, CheckReport, CheckResult
from overlayd.lab.suite.probing import CannotShow, Limits
from overlayd.lab.suite.topology import Topology


async def run(
    topology: Topology,
    checks: Iterable[Check],
    limits: Limits,
    on_result: Callable[[CheckResult], None] = lambda result: None,
) -> CheckReport:
    """Run all these checks; `on_result` is called with the result of each as soon as it is known."""
    results = []
    for check in checks:
        result = await run_check(topology, check, limits)
        results.append(result)
        on_result(result)
    return CheckReport(topology.spec.name, topology.spec.backend, tuple(results))


async def run_check(topology: Topology, check: Check, limits: Limits) -> CheckResult:
    pairs = check.pairs(topology)
    if not pairs:
        return CheckResult(check.name, check.title, {}, CheckNotApplicable(f"needs {check.needs}"))
    began = trio.current_time()
    try:
        found = await check.ask(topology, pairs, limits)
    except CannotShow as reason:
        return CheckResult(check.name, check.title, {}, CheckNotApplicable(str(reason)))
    outcomes = {(pair.source.name, pair.target.name): found[pair] for pair in pairs}
    return CheckResult(check.name, check.title, outcomes, seconds=trio.current_time() - began)
