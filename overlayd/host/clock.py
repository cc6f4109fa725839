"""The clock that leases are measured by."""

from __future__ import annotations

import time


def boottime() -> float:
    """Return the seconds of CLOCK_BOOTTIME: unlike trio's clock it goes on while the machine is suspended, and
    unlike the wall clock nobody sets it (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
