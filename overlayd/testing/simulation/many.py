"""Runs many scenarios on all cores."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from overlayd.testing.simulation.report import explain
from overlayd.testing.simulation.run import run_scenario
from overlayd.testing.simulation.scenario import draw_scenario


def run_seeds(seeds: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Yield each seed, in order, with the name of the invariant that it breaks, "" for none."""
    with ProcessPoolExecutor(os.cpu_count(), initializer=logging.disable) as pool:
        yield from pool.map(_judge, seeds, chunksize=4)


def explain_seeds(seeds: Iterable[int]) -> Iterator[str]:
    """Explain each of these seeds, all of which fail."""
    with ProcessPoolExecutor(os.cpu_count(), initializer=logging.disable) as pool:
        yield from pool.map(_explain, seeds)


def _judge(seed: int) -> tuple[int, str]:
    breach = run_scenario(draw_scenario(seed)).breach
    return seed, breach.invariant if breach is not None else ""


def _explain(seed: int) -> str:
    return explain(run_scenario(draw_scenario(seed)))
