"""The leases in a key-value store (etcd, or the one in memory), as a node reads and claims them.

The records are kept and read by `overlayd.core.leases.records`, claims are decided by the LeaseKeeper; here is
only the asking.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.claimer import Claimant, ClaimRequest
from overlayd.core.leases.keeper.claimer import EtcdClaimer
from overlayd.core.leases.keeper.state import (
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
    to_view,
)
from overlayd.core.leases.records import RecordBook, absorb_changes, absorb_snapshot
from overlayd.core.leases.store import (
    CONFIG,
    Changes,
    Committed,
    Field,
    Guard,
    Put,
    Store,
    StoreError,
    Transaction,
)


class RecordSource:
    """See overlayd.core.leases.source.LeaseSource."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.records = RecordBook()
        self._listed_at = 0
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def book(self) -> LeaseBook:
        return self.records.book

    def subscribe(self, news: Callable[[bool], None]) -> None:
        self._listeners.append(news)

    async def refresh(self) -> None:
        asked_at = self.records.revision
        snapshot = await self._store.snapshot()
        self._listed_at = snapshot.revision
        self._take(absorb_snapshot(self.records, snapshot, asked_at))

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[None]]:
        async with self._store.watch(self._listed_at) as watch, aclosing(self._learn(watch)) as learned:
            yield learned

    async def _learn(self, watch: AsyncIterator[Changes]) -> AsyncGenerator[None]:
        async for changes in watch:
            self._take(absorb_changes(self.records, changes))
            yield

    def _take(self, records: RecordBook) -> None:
        before, self.records = self.records, records
        is_new = records.differs_from(before)
        for listener in self._listeners:
            listener(is_new)

    async def write_first_config(self, value: bytes) -> bool:
        none_yet = Guard(CONFIG, Field.CREATE_REVISION, 0)
        outcome = await self._store.commit(Transaction((none_yet,), (Put(CONFIG, value, lease_id=0),)))
        return isinstance(outcome, Committed)


@dataclass(frozen=True, slots=True)
class KeeperClaims:
    """See overlayd.core.leases.source.Claims.  `view` composes what there is to decide on, None if it can't."""

    store: Store
    source: RecordSource
    start: EtcdClaimer
    view: Callable[[], StoreViewed | None]
    clock: Callable[[], float]

    def look(self) -> Event:
        return self.view() or Tick()

    async def carry_out(self, command: Command) -> Event:
        sent_at = self.clock()
        try:
            match command:
                case AskGrant(ttl=ttl):
                    return Granted(await self.store.grant(ttl), sent_at)
                case AskKeepalive(lease_id=lease_id):
                    return KeptAlive(await self.store.keepalive(lease_id), sent_at)
                case AskCommit(transaction=transaction):
                    return CommitResult(await self.store.commit(transaction))
                case RefreshView():
                    await self.source.refresh()
                    return self.view() or CommandFailed("the store has no valid network config")
        except StoreError as error:
            return CommandFailed(str(error))


class StoreLeases:
    """See overlayd.core.leases.source.LeaseStore."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.source = RecordSource(store)

    def claims(
        self, claimant: Claimant, request: Callable[[], ClaimRequest | None], clock: Callable[[], float]
    ) -> KeeperClaims:
        state = KeeperState(claimant.node_id, claimant.incarnation, claimant.ttl, previous=claimant.previous)

        def view() -> StoreViewed | None:
            wanted, records = request(), self.source.records
            if wanted is None or not records.in_sync:
                return None
            return StoreViewed(to_view(records, wanted), wanted.attributes)

        return KeeperClaims(self._store, self.source, EtcdClaimer(state), view, clock)
