"""A store in memory that keeps the same promises as etcd, for tests and simulations.

Revisions count as etcd's do: the first is 1, each transaction that changes anything adds 1.  A lease ends when
somebody looks: every method first ends the leases whose time has come, in the order of their deadlines, and a
watch that waits wakes up for the next one.  So there is no task in the background, and with trio's MockClock a
run can be repeated exactly.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from overlayd.core.leases.store import (
    CONFIG,
    OWN,
    SUBNETS,
    Change,
    Changes,
    Committed,
    Compacted,
    Delete,
    Deleted,
    Grant,
    Guard,
    Put,
    Record,
    Refused,
    Snapshot,
    StoreError,
    StoreRefused,
    Transaction,
    is_watched,
)


@dataclass(slots=True)
class _Lease:
    """`deadline` is a time of trio's clock."""

    ttl: int
    deadline: float


class MemoryStore:
    """See overlayd.core.leases.store.Store."""

    def __init__(self) -> None:
        self._revision = 1
        self._compacted = 0
        self._records: dict[str, Record] = {}
        self._history: dict[int, Changes] = {}
        self._leases: dict[int, _Lease] = {}
        self._granted = 0
        self._changed = trio.Event()

    async def snapshot(self) -> Snapshot:
        await self._arrive()
        return Snapshot(self._revision, self._records.get(CONFIG), self._below(SUBNETS), self._below(OWN))

    async def grant(self, ttl: int) -> Grant:
        await self._arrive()
        self._granted += 1
        self._leases[self._granted] = _Lease(ttl, trio.current_time() + ttl)
        return Grant(self._granted, ttl)

    async def keepalive(self, lease_id: int) -> int:
        await self._arrive()
        lease = self._leases.get(lease_id)
        if lease is None:
            return 0
        lease.deadline = trio.current_time() + lease.ttl
        return lease.ttl

    async def revoke(self, lease_id: int) -> None:
        await self._arrive()
        self._end(lease_id)

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        await self._arrive()
        _refuse_ambiguity(transaction.actions)
        if not all(self._holds(guard) for guard in transaction.guards):
            return Refused(self._revision)
        for action in transaction.actions:
            if isinstance(action, Put) and action.lease_id and action.lease_id not in self._leases:
                raise StoreRefused(f"the store has no lease {action.lease_id}, which {action.name} names")
        self._write(transaction.actions)
        return Committed(self._revision)

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncGenerator[AsyncIterator[Changes]]:
        yield _Watch(self, after)

    def _below(self, prefix: str) -> tuple[Record, ...]:
        return tuple(record for name, record in sorted(self._records.items()) if name.startswith(prefix))

    def compact(self, revision: int) -> None:
        """Forget the history before this revision, as etcd's compaction does."""
        if not self._compacted < revision <= self._revision:
            raise ValueError(f"revision {revision} is not within {self._compacted + 1} to {self._revision}")
        self._compacted = revision
        self._history = {number: changes for number, changes in self._history.items() if number >= revision}

    async def next_changes(self, seen: int) -> Changes:
        """Wait for the first revision after `seen`, and return its changes."""
        while True:
            await self._arrive()
            if seen + 1 < self._compacted:
                raise Compacted(f"the store has compacted its history before revision {self._compacted}")
            if seen < self._revision:
                return self._history[seen + 1]
            with trio.move_on_at(min((lease.deadline for lease in self._leases.values()), default=math.inf)):
                await self._changed.wait()

    async def sign_of_life(self, seen: int) -> Changes:
        await self._arrive()
        if seen > self._revision:
            raise StoreError(f"the store stands at revision {self._revision}, before revision {seen}")
        return Changes(seen, ())

    async def _arrive(self) -> None:
        """Begin a request: it can be cancelled, and it finds no lease past its deadline."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        over = [(lease.deadline, number) for number, lease in self._leases.items() if lease.deadline <= now]
        for _, lease_id in sorted(over):
            self._end(lease_id)

    def _end(self, lease_id: int) -> None:
        if self._leases.pop(lease_id, None):
            self._write(Delete(name) for name in sorted(self._records) if self._records[name].lease_id == lease_id)

    def _holds(self, guard: Guard) -> bool:
        record = self._records.get(guard.name)
        return (getattr(record, guard.field.value) if record else 0) == guard.equals

    def _write(self, actions: Iterable[Put | Delete]) -> None:
        revision = self._revision + 1
        changes: list[Change] = []
        for action in actions:
            was = self._records.pop(action.name, None)
            match action:
                case Put(name=name, value=value, lease_id=lease_id):
                    created = was.create_revision if was else revision
                    self._records[name] = Record(name, value, created, revision, lease_id)
                    changes.append(self._records[name])
                case Delete(name=name) if was:
                    changes.append(Deleted(name, revision))
        if changes:
            self._revision = revision
            told = tuple(change for change in changes if is_watched(change.name))
            self._history[revision] = Changes(revision, told)
            self._changed.set()
            self._changed = trio.Event()


class _Watch:
    """One reader's place in the history.  Like etcd's, it begins with a sign of life."""

    def __init__(self, store: MemoryStore, after: int) -> None:
        self._store = store
        self._seen = after
        self._begun = False

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> Changes:
        changes = await (self._store.next_changes if self._begun else self._store.sign_of_life)(self._seen)
        self._begun = True
        self._seen = changes.revision
        return changes


def _refuse_ambiguity(actions: Iterable[Put | Delete]) -> None:
    """Refuse a transaction that puts a key twice, or puts it and deletes it, as etcd does."""
    puts: set[str] = set()
    deletes: set[str] = set()
    for action in actions:
        mine, forbidden = (puts, puts | deletes) if isinstance(action, Put) else (deletes, puts)
        if action.name in forbidden:
            raise StoreRefused(f"the transaction writes {action.name} twice")
        mine.add(action.name)
