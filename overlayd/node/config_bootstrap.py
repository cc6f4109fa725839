"""The first network config of a cluster, from a file that its operator gave to every node.

The store's config is the one in force, always.  Where there is none yet, whichever daemon comes first writes what
its file says, in a transaction that only the first of them wins; where there is one, the file changes nothing, and
a difference between the two is told, not fought over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from overlayd.core.leases.store import CONFIG, Committed, Field, Guard, Put, Store, StoreError, Transaction
from overlayd.core.network.first_config import FirstConfig
from overlayd.node.wakeup import WakeUp

RETRY = 10.0
"""Seconds until a write that failed is tried again."""

log = logging.getLogger("overlayd.founding")


class ConfigBootstrap:
    """Writes `first` whenever `is_missing` says that the store is known to have no config."""

    def __init__(self, store: Store, first: FirstConfig, is_missing: Callable[[], bool]) -> None:
        self._store = store
        self._first = first
        self._is_missing = is_missing
        self.wake_up = WakeUp()

    async def run(self) -> None:
        none_yet = Guard(CONFIG, Field.CREATE_REVISION, 0)
        config_bootstrap = Transaction((none_yet,), (Put(CONFIG, self._first.value, lease_id=0),))
        while True:
            retry = None
            if self._is_missing():
                retry = RETRY
                try:
                    outcome = await self._store.commit(config_bootstrap)
                except StoreError as error:
                    log.warning("network config not written", extra={"reason": str(error)})
                else:
                    if isinstance(outcome, Committed):
                        log.info("network config written", extra={"file": self._first.file})
            await self.wake_up.wait(retry)
