"""Waiting for what a driver tells of changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from overlayd.core.kernel.driver import ALL, Driver, Keys


class ChangedKeys:
    """The keys reported since the last `wait` returned."""

    def __init__(self) -> None:
        self._told = trio.Event()
        self._keys: Keys = frozenset()

    def tell(self, keys: Keys) -> None:
        self._keys = ALL if keys is ALL or self._keys is ALL else self._keys | keys
        self._told.set()

    async def wait(self) -> Keys:
        """Return the keys that were told, once there are any."""
        await self._told.wait()
        keys, self._keys, self._told = self._keys, frozenset(), trio.Event()
        return keys


@asynccontextmanager
async def open_changes(driver: Driver) -> AsyncIterator[ChangedKeys]:
    """Gather the driver's reports while the context is open."""
    changes = ChangedKeys()
    async with driver.watch(changes.tell):
        yield changes
