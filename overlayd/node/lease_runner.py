"""Carries out what the LeaseKeeper decides: one command at a time, each answered by an event.

All decisions are in `overlayd.core.leases.keeper`; here is only the waiting, the asking, and the clock.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from overlayd.core.leases.keeper import (
    AskCommit,
    AskGrant,
    AskKeepalive,
    Command,
    CommandFailed,
    CommitResult,
    Event,
    Granted,
    KeeperState,
    KeptAlive,
    RefreshView,
    StoreViewed,
    Tick,
    step,
    wake_at,
)
from overlayd.core.leases.store import Store, StoreError
from overlayd.node.wakeup import WakeUp


class LeaseRunner:
    """Keeps `state` up to date.

    `seen` gives what there is to decide on, None while something is missing; `relist` reads
    the whole store afresh; `decided` is called with the state before and after every step.
    """

    def __init__(
        self,
        store: Store,
        state: KeeperState,
        seen: Callable[[], StoreViewed | None],
        relist: Callable[[], Awaitable[int]],
        decided: Callable[[KeeperState, KeeperState], None],
        clock: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self.state = state
        self.wake_up = WakeUp()
        self._store = store
        self._keeper_input = seen
        self._relist = relist
        self._decided = decided
        self._clock = clock
        self._chance = chance
        self._stepped_at = clock()

    async def run(self) -> None:
        while True:
            command = self._step(self._keeper_input() or Tick())
            while command is not None:
                command = self._step(await self._perform(command))
            at = wake_at(self.state, self._stepped_at)
            await self.wake_up.wait(None if at is None else at - self._clock())

    def _step(self, event: Event) -> Command | None:
        before, self._stepped_at = self.state, self._clock()
        self.state, command = step(before, event, self._stepped_at, self._chance.random())
        self._decided(before, self.state)
        return command

    async def _perform(self, command: Command) -> Event:
        sent_at = self._clock()
        try:
            match command:
                case AskGrant(ttl=ttl):
                    return Granted(await self._store.grant(ttl), sent_at)
                case AskKeepalive(lease_id=lease_id):
                    return KeptAlive(await self._store.keepalive(lease_id), sent_at)
                case AskCommit(transaction=transaction):
                    return CommitResult(await self._store.commit(transaction))
                case RefreshView():
                    await self._relist()
                    return self._keeper_input() or CommandFailed("the store has no valid network config")
        except StoreError as error:
            return CommandFailed(str(error))
