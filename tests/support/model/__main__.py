"""`make model [STATES=…]`: search every scenario, the large ones as far as so many states go."""

from __future__ import annotations

import sys
import time

from support.model.model import Model
from support.model.scenarios import DEEP, EVERYDAY, LONG
from support.model.search import search
from support.model.trace_printer import print_trace


def main(at_most: int) -> int:
    total = 0
    for scenario in (*EVERYDAY, *LONG, *DEEP):
        model, began = Model(scenario), time.monotonic()
        found = search(model, at_most)
        total += found.states
        extent = "all" if found.complete else f"as far as depth {found.depth}"
        print(
            f"{scenario.name:45} {found.states:10,} states, {extent}, {time.monotonic() - began:.0f} s", flush=True
        )
        if found.violation is not None:
            print(print_trace(model, found))
            return 1
    print(f"{total:,} states, no violation")
    return 0


sys.exit(main(int(sys.argv[1])))
