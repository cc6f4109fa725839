"""What every Store promises, asked of the one in memory and of a real etcd."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from overlayd.core.leases.store import (
    Change,
    Changes,
    Committed,
    Compacted,
    Delete,
    Deleted,
    Field,
    Guard,
    Put,
    Record,
    Refused,
    Store,
    StoreError,
    StoreRefused,
    Transaction,
)
from overlayd.store.etcd import open_etcd
from overlayd.store.memory import MemoryStore
from support.etcd import Etcd

PATIENCE = 30.0
"""Seconds that anything promised may take."""

SUBNET = "subnets/10.244.3.0-24"


@dataclass(frozen=True)
class Bench:
    """A fresh store, and what only the one who runs it can do."""

    store: Store
    compact: Callable[[int], Awaitable[None]]


@asynccontextmanager
async def _memory_bench() -> AsyncGenerator[Bench]:
    store = MemoryStore()

    async def compact(revision: int) -> None:
        store.compact(revision)

    yield Bench(store, compact)


@asynccontextmanager
async def _etcd_bench(etcd: Etcd) -> AsyncGenerator[Bench]:
    async def compact(revision: int) -> None:
        await etcd.ctl("compact", str(revision))

    async with open_etcd([etcd.endpoint], f"/test/{secrets.token_hex(8)}") as store:
        yield Bench(store, compact)


@pytest.fixture(scope="module")
def etcd() -> Generator[Etcd]:
    with Etcd() as etcd:
        yield etcd


@pytest.fixture(params=["memory", "etcd"])
def open_bench(request: pytest.FixtureRequest) -> Callable[[], AbstractAsyncContextManager[Bench]]:
    if request.param == "memory":
        return _memory_bench
    etcd: Etcd = request.getfixturevalue("etcd")
    return lambda: _etcd_bench(etcd)


@pytest.fixture
async def bench(open_bench: Callable[[], AbstractAsyncContextManager[Bench]]) -> AsyncGenerator[Bench]:
    async with open_bench() as bench:
        yield bench


@pytest.fixture
async def store(bench: Bench) -> Store:
    return bench.store


def absent(name: str) -> Guard:
    return Guard(name, Field.CREATE_REVISION, 0)


async def write(store: Store, *actions: Put | Delete) -> int:
    outcome = await store.commit(Transaction((), actions))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def read(watch: AsyncIterator[Changes], count: int) -> list[Change]:
    """The next `count` changes; that their revisions rise is checked on the way."""
    found: list[Change] = []
    with trio.fail_after(PATIENCE):
        while len(found) < count:
            changes = await anext(watch)
            assert all(change.mod_revision <= changes.revision for change in changes.changes)
            found += changes.changes
    revisions = [change.mod_revision for change in found]
    assert revisions == sorted(revisions)
    return found


async def read_after(store: Store, revision: int, count: int) -> list[Change]:
    async with store.watch(revision) as watch:
        return await read(watch, count)


async def lease_of(store: Store) -> int:
    """A lease that outlives this module: its end would show in the revisions of another test."""
    return (await store.grant(3600)).lease_id


async def test_a_new_cluster_has_neither_config_nor_subnets(store: Store) -> None:
    snapshot = await store.snapshot()
    assert snapshot.revision >= 1
    assert snapshot.config is None
    assert snapshot.subnets == ()


async def test_a_snapshot_shows_what_was_written_and_nothing_else(store: Store) -> None:
    lease = await lease_of(store)
    first = await write(store, Put("config", b"{}", 0), Put(SUBNET, b"a", lease))
    second = await write(store, Put(SUBNET, b"b", lease), Put("subnets/", b"", 0))
    beside = ("overlay", "subnets", "subnets-x", "subnetsX", "configX")
    last = await write(store, *(Put(name, b"", 0) for name in beside))
    snapshot = await store.snapshot()
    assert snapshot.revision == last == first + 2
    assert snapshot.config == Record("config", b"{}", first, first, 0)
    assert snapshot.subnets == (
        Record("subnets/", b"", second, second, 0),
        Record(SUBNET, b"b", first, second, lease),
    )


async def test_a_snapshot_of_many_large_records_is_whole_and_in_order(store: Store) -> None:
    """More than one page from etcd, and more than gRPC takes in one message by default."""
    names = [f"subnets/10.{n // 256}.{n % 256}.0-24" for n in range(300)]
    rubbish = b"\xff" * (1 << 20)
    for n in range(0, 300, 100):
        await write(store, *(Put(name, name.encode(), 0) for name in names[n : n + 100]))
    large = [f"subnets/10.9.{n}.0-24" for n in range(6)]
    for name in large:
        await write(store, Put(name, rubbish, 0))
    records = {record.name: record.value for record in (await store.snapshot()).subnets}
    assert list(records) == sorted(names + large)
    assert records == {name: name.encode() for name in names} | dict.fromkeys(large, rubbish)


async def test_a_snapshot_is_of_one_revision_while_others_write(store: Store) -> None:
    """What is written together is seen together, though the last of these names is pages after the first."""
    for n in range(3):
        await write(store, *(Put(f"subnets/{n}{k}", b"", 0) for k in range(100)))

    async def keep_writing(number: int = 0) -> None:
        while True:
            number += 1
            await write(store, *(Put(name, b"%d" % number, 0) for name in ("config", "subnets/", "subnets/~")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_writing)
        for _ in range(20):
            snapshot = await store.snapshot()
            together = [snapshot.config, snapshot.subnets[0], snapshot.subnets[-1]]
            assert snapshot.config is None or len({record and record.value for record in together}) == 1
            assert all(record.mod_revision <= snapshot.revision for record in snapshot.subnets)
        nursery.cancel_scope.cancel()


async def test_of_fifty_claims_of_one_key_exactly_one_wins(store: Store) -> None:
    outcomes: dict[int, Committed | Refused] = {}

    async def claim(claimant: int) -> None:
        transaction = Transaction((absent(SUBNET),), (Put(SUBNET, b"%d" % claimant, 0),))
        outcomes[claimant] = await store.commit(transaction)

    async with trio.open_nursery() as nursery:
        for claimant in range(50):
            nursery.start_soon(claim, claimant)
    winners = [claimant for claimant, outcome in outcomes.items() if isinstance(outcome, Committed)]
    assert len(winners) == 1
    (record,) = (await store.snapshot()).subnets
    assert record.value == b"%d" % winners[0]
    assert outcomes[winners[0]].revision == record.create_revision
    assert all(outcome.revision >= record.create_revision for outcome in outcomes.values())


@pytest.mark.parametrize("field", Field)
async def test_a_guard_holds_for_the_value_that_is_there_and_for_no_other(store: Store, field: Field) -> None:
    lease = await lease_of(store)
    created = await write(store, Put(SUBNET, b"a", lease))
    modified = await write(store, Put(SUBNET, b"b", lease))
    right = {Field.CREATE_REVISION: created, Field.MOD_REVISION: modified, Field.LEASE_ID: lease}
    for wrong in {0, created, modified, lease} - {right[field]}:
        refused = await store.commit(Transaction((Guard(SUBNET, field, wrong),), (Delete(SUBNET),)))
        assert refused == Refused(modified)
    # Of several guards, all must hold.
    both = (Guard(SUBNET, field, right[field]), Guard(SUBNET, Field.MOD_REVISION, modified + 1))
    assert await store.commit(Transaction(both, (Delete(SUBNET),))) == Refused(modified)
    held = await store.commit(Transaction((Guard(SUBNET, field, right[field]),), (Delete(SUBNET),)))
    assert held == Committed(modified + 1)
    assert (await store.snapshot()).subnets == ()


@pytest.mark.parametrize("field", Field)
async def test_every_field_of_a_missing_key_is_zero(store: Store, field: Field) -> None:
    assert isinstance(await store.commit(Transaction((Guard(SUBNET, field, 1),), ())), Refused)
    assert isinstance(await store.commit(Transaction((Guard(SUBNET, field, 0),), ())), Committed)


async def test_a_key_that_returns_is_a_new_key(store: Store) -> None:
    await write(store, Put(SUBNET, b"a", 0))
    await write(store, Delete(SUBNET))
    again = await write(store, Put(SUBNET, b"a", 0))
    assert (await store.snapshot()).subnets == (Record(SUBNET, b"a", again, again, 0),)


async def test_what_changes_nothing_has_no_revision(store: Store) -> None:
    before = (await store.snapshot()).revision
    assert await write(store, Delete(SUBNET)) == before
    assert await write(store) == before
    assert (await store.snapshot()).revision == before


async def test_a_transaction_that_writes_a_key_twice_is_refused(store: Store) -> None:
    for second in (Put(SUBNET, b"b", 0), Delete(SUBNET)):
        with pytest.raises(StoreRefused):
            await store.commit(Transaction((), (Put(SUBNET, b"a", 0), second)))
    assert (await store.snapshot()).subnets == ()


async def test_a_key_goes_when_its_lease_ends(store: Store) -> None:
    grant = await store.grant(1)
    assert grant.ttl >= 1
    put = await write(store, Put(SUBNET, b"a", grant.lease_id), Put("config", b"{}", 0))
    assert await read_after(store, put, 1) == [Deleted(SUBNET, put + 1)]
    snapshot = await store.snapshot()
    assert snapshot.subnets == ()
    assert snapshot.config is not None
    assert await store.keepalive(grant.lease_id) == 0


async def test_a_lease_kept_alive_outlives_its_time(store: Store) -> None:
    grant = await store.grant(2)  # etcd grants no less
    put = await write(store, Put(SUBNET, b"a", grant.lease_id))
    for _ in range(4):
        await trio.sleep(grant.ttl / 3)
        assert await store.keepalive(grant.lease_id) == grant.ttl
    snapshot = await store.snapshot()
    assert [record.mod_revision for record in snapshot.subnets] == [put]
    assert await read_after(store, put, 1) == [Deleted(SUBNET, put + 1)]


async def test_revoking_deletes_all_keys_of_the_lease_at_once(store: Store) -> None:
    mine, other = await lease_of(store), await lease_of(store)
    put = await write(
        store, Put("subnets/b", b"", mine), Put("subnets/a", b"", mine), Put("subnets/c", b"", other)
    )
    await write(store, Put("subnets/b", b"", other))  # a put moves the key to the lease that it names
    await write(store, Put("subnets/b", b"", mine))
    await store.revoke(mine)
    assert await read_after(store, put + 2, 2) == [Deleted("subnets/a", put + 3), Deleted("subnets/b", put + 3)]
    assert [record.name for record in (await store.snapshot()).subnets] == ["subnets/c"]
    assert await store.keepalive(mine) == 0
    await store.revoke(mine)  # an unknown lease is no error


async def test_a_key_put_without_a_lease_stays_when_its_former_lease_ends(store: Store) -> None:
    lease = await lease_of(store)
    await write(store, Put(SUBNET, b"a", lease))
    reserved = await write(store, Put(SUBNET, b"b", 0))
    await store.revoke(lease)
    assert [record.mod_revision for record in (await store.snapshot()).subnets] == [reserved]


async def test_a_put_cannot_name_an_unknown_lease(store: Store) -> None:
    lease = await lease_of(store)
    await store.revoke(lease)
    before = await store.snapshot()
    with pytest.raises(StoreRefused, match="lease"):
        await store.commit(Transaction((absent(SUBNET),), (Put("config", b"", 0), Put(SUBNET, b"a", lease))))
    # Where a guard fails, the lease is not looked at.
    guards = (Guard(SUBNET, Field.CREATE_REVISION, 1),)
    assert isinstance(await store.commit(Transaction(guards, (Put(SUBNET, b"a", lease),))), Refused)
    assert await store.snapshot() == before


async def test_a_watch_replays_history_exactly(store: Store) -> None:
    start = (await store.snapshot()).revision
    history: list[Change] = []
    for n in range(40):
        name = f"subnets/{n % 7}"
        revision = await write(store, Put(name, b"%d" % n, 0), Put("unseen", b"", 0))
        created = next(
            (c.create_revision for c in reversed(history) if isinstance(c, Record) and c.name == name), None
        )
        history.append(Record(name, b"%d" % n, created or revision, revision, 0))
    config = await write(store, Put("config", b"{}", 0), Put("subnets/new", b"", 0))
    history += [Record("config", b"{}", config, config, 0), Record("subnets/new", b"", config, config, 0)]
    history.append(Deleted("subnets/3", await write(store, Delete("subnets/3"))))
    for after in (start, start + 1, start + 20, config - 1, config):
        expected = [change for change in history if change.mod_revision > after]
        assert await read_after(store, after, len(expected)) == expected


async def test_a_watch_goes_on_from_the_past_into_the_present(store: Store) -> None:
    start = (await store.snapshot()).revision
    seen: list[Change] = []

    async def watch() -> None:
        seen.extend(await read_after(store, start, 200))

    async with trio.open_nursery() as nursery:
        for n in range(200):
            await write(store, Put(f"subnets/{n}", b"", 0))
            if n == 100:
                nursery.start_soon(watch)
    assert [change.mod_revision for change in seen] == list(range(start + 1, start + 201))
    assert [change.name for change in seen] == [f"subnets/{n}" for n in range(200)]


async def test_a_watch_that_is_not_read_loses_nothing(store: Store) -> None:
    """More than any buffer on the way holds."""
    start = (await store.snapshot()).revision
    filler = b"x" * 500_000
    async with store.watch(start) as watch:
        await read(watch, 0)
        for n in range(40):
            await write(store, Put(f"subnets/{n % 3}", b"%d" % n + filler, 0))
        values = [change.value for change in await read(watch, 40) if isinstance(change, Record)]
    assert values == [b"%d" % n + filler for n in range(40)]


async def test_a_watch_begins_with_a_sign_of_life_and_then_waits(store: Store) -> None:
    start = await write(store, Put("config", b"{}", 0))
    async with store.watch(start) as watch:
        with trio.fail_after(PATIENCE):
            assert await anext(watch) == Changes(start, ())
        with trio.move_on_after(0.2) as waited:
            await anext(watch)
        assert waited.cancelled_caught
        # A read that was given up has lost nothing and ended nothing.
        revision = await write(store, Delete("config"))
        assert await read(watch, 1) == [Deleted("config", revision)]


async def test_a_watch_that_waits_is_not_deafened_by_what_changes_nothing(store: Store) -> None:
    start = (await store.snapshot()).revision
    async with store.watch(start) as watch, trio.open_nursery() as nursery:
        found: list[Change] = []

        async def listen() -> None:
            found.extend(await read(watch, 1))

        nursery.start_soon(listen)
        await trio.sleep(0.05)
        await write(store, Delete(SUBNET))
        revision = await write(store, Put("config", b"{}", 0))
    assert found == [Record("config", b"{}", revision, revision, 0)]


async def test_two_watches_both_see_everything(store: Store) -> None:
    start = (await store.snapshot()).revision
    async with store.watch(start) as one, store.watch(start) as other:
        revision = await write(store, Put("config", b"{}", 0))
        assert await read(one, 1) == await read(other, 1) == [Record("config", b"{}", revision, revision, 0)]


async def test_a_watch_from_before_a_compaction_says_so(bench: Bench) -> None:
    start = (await bench.store.snapshot()).revision
    for n in range(5):
        await write(bench.store, Put("config", b"%d" % n, 0))
    await bench.compact(start + 4)
    with pytest.raises(Compacted):
        await read_after(bench.store, start, 1)
    snapshot = await bench.store.snapshot()
    assert snapshot.config is not None
    assert snapshot.config.value == b"4"
    assert [change.mod_revision for change in await read_after(bench.store, start + 4, 1)] == [start + 5]


async def test_a_watch_from_the_future_says_so(store: Store) -> None:
    """Its reader has seen more than this store has: the store went back."""
    revision = (await store.snapshot()).revision
    with pytest.raises(StoreError, match=f"stands at revision {revision}, before revision {revision + 7}"):
        await read_after(store, revision + 7, 1)


async def test_leaving_a_watch_ends_it_wherever_it_is(store: Store) -> None:
    """Unread, idle, with changes unread, or cancelled while it waits: leaving takes no answer from the store."""
    start = (await store.snapshot()).revision
    with trio.fail_after(PATIENCE):
        async with store.watch(start):
            pass
        async with store.watch(start) as watch:
            await anext(watch)
            for n in range(100):  # more than any buffer on the way holds
                await write(store, Put("config", b"%d" % n, 0))
            await trio.sleep(0.1)
        with trio.move_on_after(0.2):
            async with store.watch(start + 100) as watch:
                await read(watch, 1)
