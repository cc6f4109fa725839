"""Follows the store: a snapshot, then every change after it, for ever.

A broken watch is answered with a new snapshot, and even a healthy one is checked against a new snapshot now
and then, so that a lost event is a delay and never a lasting difference.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from overlayd.core.leases.store import Changes, Store, StoreError

RELIST = 300.0
"""Seconds after which a watch is checked against a new snapshot."""
RETRY_FIRST, RETRY_LAST = 0.5, 15.0
"""Seconds before the first retry, and what the doubling ends at."""
SPREAD = 5.0
"""Seconds within which to return after a watch that worked has broken.  When a member of etcd fails, the watches
of all nodes break at one instant; they must not all list the whole store at the next."""


async def follow(
    store: Store,
    relist: Callable[[], Awaitable[int]],
    absorb: Callable[[Changes], None],
    trouble: Callable[[str], None],
    chance: random.Random,
) -> None:
    """Watch until cancelled.  `relist` reads the whole store and returns its revision, `absorb` takes what came
    after it; `trouble` is told what keeps the store from answering, "" once a watch has said something."""
    failures = 0
    worked = False
    while True:
        try:
            revision = await relist()
            with trio.move_on_after(RELIST):
                async with store.watch(revision) as watch:
                    async for changes in watch:
                        trouble("")
                        failures, worked = 0, True
                        absorb(changes)
        except StoreError as error:
            trouble(str(error))
            doubled = min(RETRY_FIRST * 2.0**failures, RETRY_LAST) * chance.uniform(0.5, 1.0)
            pause = chance.uniform(0, SPREAD) if worked else doubled
            failures, worked = failures + 1, False
            await trio.sleep(pause)
