"""Many episodes on all cores."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from overlayd.testing.simulation.report import explain
from overlayd.testing.simulation.run import run_scenario
from overlayd.testing.simulation.scenario import draw_scenario


def run_seeds(seeds: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Each seed, in order, with the name of the promise that was broken, "" for none."""
    with ProcessPoolExecutor(os.cpu_count(), initializer=logging.disable) as pool:
        yield from pool.map(_judge, seeds, chunksize=4)


def explain_seeds(seeds: Iterable[int]) -> Iterator[str]:
    """What is to be told of each of these, all of which fail."""
    with ProcessPoolExecutor(os.cpu_count(), initializer=logging.disable) as pool:
        yield from pool.map(_explain, seeds)


def _judge(seed: int) -> tuple[int, str]:
    breach = run_scenario(draw_scenario(seed)).breach
    return seed, breach.promise if breach is not None else ""


def _explain(seed: int) -> str:
    return explain(run_scenario(draw_scenario(seed)))
