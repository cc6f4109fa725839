"""`python -m overlayd.testing.simulation`: runs many scenarios on all cores, and explains failures."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from overlayd.testing.simulation.many import explain_seeds, run_seeds
from overlayd.testing.simulation.run import run_scenario
from overlayd.testing.simulation.scenario import draw_scenario

TOLD = 5
"""Failures that are explained; of the others only the seeds are printed."""
EVERY = 10.0
"""Seconds between two progress messages."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m overlayd.testing.simulation", description=__doc__)
    parser.add_argument("--scenarios", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="the first seed (default: %(default)s)"
    )
    parser.add_argument("--trace", action="store_true", help="print every step of the first scenario alone")
    args = parser.parse_args()
    if args.trace:
        return _tell(args.first)
    return _run_many(range(args.first, args.first + args.scenarios))


def _tell(seed: int) -> int:
    logging.disable()
    outcome = run_scenario(draw_scenario(seed))
    print(f"{outcome.scenario}\n{outcome.trace}{outcome.breach or 'every invariant held'}")
    return outcome.breach is not None


def _run_many(seeds: range) -> int:
    began = told_at = time.monotonic()
    failed: list[int] = []
    for done, (seed, invariant) in enumerate(run_seeds(seeds), 1):
        if invariant:
            failed.append(seed)
            print(f"seed {seed}: {invariant} broken", flush=True)
        if time.monotonic() - told_at > EVERY or done == len(seeds):
            told_at = time.monotonic()
            print(f"{done} of {len(seeds)} scenarios, {len(failed)} failed, {told_at - began:.0f} s", flush=True)
    for text in explain_seeds(failed[:TOLD]):
        print(f"\n{text}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
