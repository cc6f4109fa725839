"""Repeatable runs of trio, and processes whose timers stop: the only place that uses private names of trio.

trio runs the tasks that are ready at one instant in random order, so that no program comes to rely on one.  With
that order drawn from a seed, and a MockClock that jumps to the next deadline, a run is a function of its seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing
from trio._core import _run

T = TypeVar("T")


def run_seeded(
    main: Callable[[], Awaitable[T]], seed: object, instruments: Sequence[trio.abc.Instrument] = ()
) -> T:
    """Run trio in virtual time; the same seed gives the same order of the tasks' steps."""
    with _seeded_order(seed):
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock, instruments=instruments)


@contextmanager
def _seeded_order(seed: object) -> Iterator[None]:
    private: Any = _run
    before = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r
    private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = True, random.Random(f"order {seed}")
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = before


def stop_timers(scope: trio.CancelScope) -> Callable[[float], None]:
    """Stop all deadlines within this scope.

    The function that is returned restarts them, each so many seconds later than it was due.
    """
    private: Any = scope
    held = [(inner, inner.deadline) for inner in _scopes(private._cancel_status) if inner.deadline < math.inf]
    for inner, _ in held:
        inner.deadline = math.inf

    def start_again(later: float) -> None:
        for inner, deadline in held:
            inner.deadline = deadline + later

    return start_again


def _scopes(status: Any) -> Iterator[trio.CancelScope]:
    yield status._scope
    for child in status.children:
        yield from _scopes(child)
