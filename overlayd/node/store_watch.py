"""Follows the store: everything once, then every change after it, for ever.

A broken watch is answered with reading everything afresh, and even a healthy one is checked against that now
and then, so that a lost event is a delay and never a lasting difference.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from overlayd.core.leases.source import LeaseSource, StoreError

RELIST = 300.0
"""Seconds after which a watch is checked against a new reading."""
RETRY_FIRST, RETRY_LAST = 0.5, 15.0
"""Seconds before the first retry, and what the doubling ends at."""
SPREAD = 5.0
"""Seconds within which to return after a watch that worked has broken.  When a member of etcd fails, the watches
of all nodes break at one instant; they must not all list the whole store at the next."""


async def follow(
    source: LeaseSource,
    trouble: Callable[[str], None],
    chance: random.Random,
) -> None:
    """Keep `source` up to date until cancelled.

    `trouble` is told what keeps the store from answering, "" once a watch has said something.
    """
    failures = 0
    worked = False
    while True:
        try:
            await source.refresh()
            with trio.move_on_after(RELIST):
                async with source.watch() as watch:
                    async for _ in watch:
                        trouble("")
                        failures, worked = 0, True
        except StoreError as error:
            trouble(str(error))
            doubled = min(RETRY_FIRST * 2.0**failures, RETRY_LAST) * chance.uniform(0.5, 1.0)
            pause = chance.uniform(0, SPREAD) if worked else doubled
            failures, worked = failures + 1, False
            await trio.sleep(pause)
