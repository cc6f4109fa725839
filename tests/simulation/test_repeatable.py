"""A seed is a run: the same steps at the same instants, in every process, whatever the wall clock says."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from overlayd.testing.simulation.run import run_scenario
from overlayd.testing.simulation.scenario import draw_scenario

SEED = 10
"""A scenario with many kinds of faults."""


def test_one_seed_gives_one_trace() -> None:
    first, second = (run_scenario(draw_scenario(SEED)) for _ in range(2))
    assert str(first.trace) == str(second.trace)
    assert len(first.trace.entries) > 100
    assert str(run_scenario(draw_scenario(SEED + 1)).trace) != str(first.trace)


def test_the_order_of_sets_shows_nowhere() -> None:
    """Python salts the hashes of strings in each process; a run must not notice."""
    told = set()
    for salt in ("1", "2", "3"):
        command = [sys.executable, "-m", "overlayd.testing.simulation", "--trace", "--first", str(SEED)]
        told.add(subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": salt}))
    assert len(told) == 1


def test_the_wall_clock_may_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """No decision rests on it: a day either way at each look makes no difference."""
    steady = run_scenario(draw_scenario(SEED))
    real, chance = time.time, random.Random(1)
    monkeypatch.setattr(time, "time", lambda: real() + chance.uniform(-86_400, 86_400))
    assert str(run_scenario(draw_scenario(SEED)).trace) == str(steady.trace)
