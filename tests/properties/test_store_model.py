"""The store in memory and a real etcd, given the same requests, give the same answers, states and histories."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlayd.core.leases.store import (
    Change,
    Delete,
    Deleted,
    Field,
    Guard,
    Put,
    Record,
    Snapshot,
    Store,
    StoreRefused,
    Transaction,
)
from overlayd.store.etcd import open_etcd
from overlayd.store.memory import MemoryStore
from support.etcd import Etcd

PATIENCE = 30.0

NAMES = ("config", "subnets/", "subnets/a", "subnets/b", "subnets-x", "overlayd/held/a")
LEASES = 3
"""Requests name the leases 1 to 3 in the order of their grants; 0 is none."""


@dataclass(frozen=True)
class ModelGrant:
    pass


@dataclass(frozen=True)
class Revoke:
    lease_id: int


@dataclass(frozen=True)
class KeepAlive:
    lease_id: int


Request = ModelGrant | Revoke | KeepAlive | Transaction

lease_ids = st.integers(1, LEASES)
names = st.sampled_from(NAMES)
guards = st.builds(Guard, names, st.sampled_from(Field), st.just(0) | st.integers(1, 12))
actions = st.builds(Put, names, st.binary(max_size=3), st.just(0) | lease_ids) | st.builds(Delete, names)
transactions = st.builds(
    Transaction, st.lists(guards, max_size=2).map(tuple), st.lists(actions, max_size=3).map(tuple)
)
requests = transactions | st.builds(ModelGrant) | st.builds(Revoke, lease_ids) | st.builds(KeepAlive, lease_ids)


class Normal:
    """A store seen so that two can be compared: its first revision is 1, its leases count from 1."""

    def __init__(self, store: Store, first: int) -> None:
        self._store = store
        self._offset = first - 1
        self._leases = [0]

    async def ask(self, request: Request) -> object:
        match request:
            case ModelGrant() if len(self._leases) <= LEASES:
                grant = await self._store.grant(1000)
                self._leases.append(grant.lease_id)
                return grant.ttl
            case ModelGrant():
                return None
            case Revoke(lease_id):
                await self._store.revoke(self._lease(lease_id))
                return None
            case KeepAlive(lease_id):
                return await self._store.keepalive(self._lease(lease_id))
            case Transaction():
                try:
                    outcome = await self._store.commit(self._told(request))
                except StoreRefused:
                    return StoreRefused
                return type(outcome), outcome.revision - self._offset

    async def snapshot(self) -> Snapshot:
        found = await self._store.snapshot()
        config = self._normal(found.config) if found.config else None
        subnets, own = (tuple(map(self._normal, records)) for records in (found.subnets, found.own))
        return Snapshot(found.revision - self._offset, config, subnets, own)

    async def history(self, after: int, until: int) -> list[Change]:
        """The changes after one revision up to another."""
        found: list[Change] = []
        last = (await self._store.commit(Transaction((), (Put("config", b"end", 0),)))).revision
        with trio.fail_after(PATIENCE):
            async with self._store.watch(after + self._offset) as watch:
                async for changes in watch:
                    found += changes.changes
                    if changes.revision == last:
                        break
        seen = [
            Deleted(change.name, change.mod_revision - self._offset)
            if isinstance(change, Deleted)
            else self._normal(change)
            for change in found
        ]
        return [change for change in seen if change.mod_revision <= until]

    def _lease(self, number: int) -> int:
        """The store's own id; of a lease not granted yet, one that no store has."""
        return self._leases[number] if number < len(self._leases) else 0x7FFF_0000 + number

    def _told(self, transaction: Transaction) -> Transaction:
        def guard(guard: Guard) -> Guard:
            if guard.field is Field.LEASE_ID:
                return replace(guard, equals=self._lease(guard.equals))
            return replace(guard, equals=guard.equals and guard.equals + self._offset)

        def action(action: Put | Delete) -> Put | Delete:
            return replace(action, lease_id=self._lease(action.lease_id)) if isinstance(action, Put) else action

        return Transaction(tuple(map(guard, transaction.guards)), tuple(map(action, transaction.actions)))

    def _normal(self, record: Record) -> Record:
        return replace(
            record,
            create_revision=record.create_revision - self._offset,
            mod_revision=record.mod_revision - self._offset,
            lease_id=self._leases.index(record.lease_id),
        )


@pytest.fixture(scope="module")
def etcd() -> Generator[Etcd]:
    with Etcd() as etcd:
        yield etcd


async def compare(etcd: Etcd, script: Sequence[Request], after: int) -> None:
    async with open_etcd([etcd.endpoint], f"/test/{secrets.token_hex(8)}") as real:
        pair = Normal(MemoryStore(), 1), Normal(real, (await real.snapshot()).revision)
        for request in script:
            memory, other = [await store.ask(request) for store in pair]
            assert memory == other, request
        memory_end, other_end = [await store.snapshot() for store in pair]
        assert memory_end == other_end
        start = min(after, memory_end.revision)
        memory_told, other_told = [await store.history(start, memory_end.revision) for store in pair]
        assert memory_told == other_told


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(requests, max_size=25), after=st.integers(1, 20))
def test_memory_and_etcd_agree(etcd: Etcd, script: list[Request], after: int) -> None:
    trio.run(compare, etcd, script, after)
