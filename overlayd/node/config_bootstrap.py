"""The first network config of a cluster, from a file that its operator gave to every node.

The store's config is the one in force, always.  Where there is none yet, whichever daemon comes first writes what
its file says, in a write that only the first of them wins; where there is one, the file changes nothing, and
a difference between the two is told, not fought over.
"""

from __future__ import annotations

import logging

from overlayd.core.leases.source import LeaseSource, StoreError
from overlayd.core.network.first_config import FirstConfig
from overlayd.node.wakeup import WakeUp

RETRY = 10.0
"""Seconds until a write that failed is tried again."""

log = logging.getLogger("overlayd.founding")


class ConfigBootstrap:
    """Writes `first` whenever the store is known to have no config; to be woken when the store has news."""

    def __init__(self, source: LeaseSource, first: FirstConfig) -> None:
        self._source = source
        self._first = first
        self.wake_up = WakeUp()

    async def run(self) -> None:
        while True:
            retry = None
            book = self._source.book
            if book.in_sync and book.config is None:
                retry = RETRY
                try:
                    is_written = await self._source.write_first_config(self._first.value)
                except StoreError as error:
                    log.warning("network config not written", extra={"reason": str(error)})
                else:
                    if is_written:
                        log.info("network config written", extra={"file": self._first.file})
            await self.wake_up.wait(retry)
