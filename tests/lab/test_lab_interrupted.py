"""Whatever interrupts the making of a lab, and whenever: nothing of it stays."""

from __future__ import annotations

import random
import signal
import time

from support.host import HostProcess

SIGNALS = [*[signal.SIGKILL] * 10, *[signal.SIGINT] * 2]
"""For each of two users."""
UP = ("lab", "up", "--nodes", "2")


def test_whenever_up_is_killed_or_interrupted_nothing_stays(host: HostProcess) -> None:
    before = host.cleanup_state()
    duration = time_of_up(host)
    shots = random.sample(SIGNALS, len(SIGNALS))
    reached = 0
    for k, signum in enumerate(shots):
        instant = (k + random.random()) / len(shots) * duration
        struck = host.strike(*UP, after=instant, signum=signum)
        if struck.status in (None, 0):  # it was done by then
            assert host.overlayd("lab", "down").status == 0
        else:
            reached += len(struck.cleanup_state["processes"]) > 1
        assert host.wait_footprint(before) == before, f"{signum.name} after {instant:.3f} s"
    assert reached >= len(shots) // 3, "most shots fell before the lab had begun or after its end"


def time_of_up(host: HostProcess) -> float:
    start = time.monotonic()
    assert host.overlayd(*UP).status == 0
    duration = time.monotonic() - start
    assert host.overlayd("lab", "down").status == 0
    return duration


def test_a_killed_demo_leaves_nothing(host: HostProcess) -> None:
    before = host.cleanup_state()
    struck = host.strike("lab", "demo", "--nodes", "2", seen="pod-pod", after=0.0, signum=signal.SIGKILL)
    assert struck.status == -signal.SIGKILL
    assert host.wait_footprint(before) == before
