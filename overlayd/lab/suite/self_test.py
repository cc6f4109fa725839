"""`python -m overlayd.lab.suite.self_test [CHECK…]`, inside a healthy lab: proof that the checks can fail.

All checks pass; then each sabotage is applied in turn, and only its own check must fail, for its own pair alone;
then all pass again.  Each step is printed as one line of JSON.  Checks that are apart, such as `leave`, which
takes a node away every time, run only to be proven themselves: first, last, and under their own sabotage.

Exit status 0: every step was as expected; 1: one was not; 2: this lab cannot show it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import trio

from overlayd.lab.snapshot import read_snapshot
from overlayd.lab.suite.catalogue import Check, UnknownCheck, choose_checks
from overlayd.lab.suite.outcome import PairNames
from overlayd.lab.suite.probing import Limits
from overlayd.lab.suite.run import run
from overlayd.lab.suite.sabotage import SABOTAGES, Sabotage
from overlayd.lab.suite.topology import NotReady, Topology

_FAULTY = Limits(answer=2.0, leave=15.0)
"""While a fault is in place: shorter than usual, as the failing pair takes the whole limit."""
_SOUND = Limits(leave=60.0)
"""Without a fault: longer than usual, for a daemon that was cut off from etcd, and for a busy machine."""

Red = dict[tuple[str, PairNames], str]
"""By check and pair, why it failed."""


async def self_test(topology: Topology, sabotages: Sequence[Sabotage]) -> bool:
    """Run all steps; whether each was as expected."""
    proven = {sabotage.check for sabotage in sabotages}
    every = [check for check in choose_checks([]) if not check.apart or check.name in proven]
    as_expected = _tell("no fault yet", set(), await _red(topology, every, _SOUND))
    for sabotage in sabotages:
        victim = sabotage.victim(topology)
        checks = [check for check in every if not check.apart or sabotage.check == check.name]
        with sabotage.rule(topology, victim).in_force():
            red = await _red(topology, checks, _FAULTY)
        own = (sabotage.check, (victim.source.name, victim.target.name))
        as_expected &= _tell(sabotage.fault, {own}, red)
    return _tell("no fault any more", set(), await _red(topology, every, _SOUND)) and as_expected


async def _red(topology: Topology, checks: Sequence[Check], limits: Limits) -> Red:
    report = await run(topology, checks, limits)
    return {
        (result.name, pair): failure.reason
        for result in report.results
        for pair, failure in result.failures.items()
    }


def _tell(fault: str, expected: set[tuple[str, PairNames]], red: Red) -> bool:
    """Print a step; whether exactly the expected pairs failed."""
    step = {
        "fault": fault,
        "expected": [{"check": check, "from": pair[0], "to": pair[1]} for check, pair in expected],
        "red": [
            {"check": check, "from": pair[0], "to": pair[1], "reason": reason}
            for (check, pair), reason in red.items()
        ],
    }
    print(json.dumps(step, ensure_ascii=False), flush=True)
    return red.keys() == expected


def main() -> int:
    names = sys.argv[1:]
    try:
        wanted = {check.name for check in choose_checks(names)}
        topology = Topology.of(read_snapshot())
    except (UnknownCheck, NotReady, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if topology.spec.nodes < 3 or topology.spec.pods < 2:
        print("this needs a lab of `overlayd lab up --nodes 3 --pods 2`", file=sys.stderr)
        return 2
    sabotages = [sabotage for sabotage in SABOTAGES if sabotage.check in wanted]
    return 0 if trio.run(self_test, topology, sabotages) else 1


if __name__ == "__main__":
    sys.exit(main())
