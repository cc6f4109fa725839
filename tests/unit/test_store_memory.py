"""The store in memory on a clock that jumps: leases end at their time, in order, and a run can be repeated."""

from __future__ import annotations

import trio
import trio.testing

from overlayd.core.leases.store import Change, Committed, Deleted, Put, Transaction
from overlayd.store.memory import MemoryStore


async def put(store: MemoryStore, name: str, lease_id: int) -> int:
    outcome = await store.commit(Transaction((), (Put(name, b"", lease_id),)))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def test_a_waiting_watch_sees_each_lease_end_at_its_time(autojump_clock: trio.testing.MockClock) -> None:
    store, start = MemoryStore(), trio.current_time()
    found: list[tuple[float, Change]] = []
    async with store.watch(1) as watch, trio.open_nursery() as nursery:

        async def follow() -> None:
            async for changes in watch:
                found.extend((trio.current_time() - start, change) for change in changes.changes)

        nursery.start_soon(follow)
        for ttl in (30, 10, 20):
            await put(store, f"subnets/{ttl}", (await store.grant(ttl)).lease_id)
        await trio.sleep(5)
        assert await store.keepalive(1) == 30
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert found[3:] == [
        (10.0, Deleted("subnets/10", 5)),
        (20.0, Deleted("subnets/20", 6)),
        (35.0, Deleted("subnets/30", 7)),
    ]


async def test_leases_that_ended_unseen_ended_in_the_order_of_their_deadlines(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    for ttl in (30, 10, 20):
        await put(store, f"subnets/{ttl}", (await store.grant(ttl)).lease_id)
    await trio.sleep(30)
    assert (await store.snapshot()).subnets == ()
    async with store.watch(4) as watch:
        assert [(await anext(watch)).changes for _ in range(4)] == [
            (),
            (Deleted("subnets/10", 5),),
            (Deleted("subnets/20", 6),),
            (Deleted("subnets/30", 7),),
        ]


async def test_a_lease_lives_until_its_deadline_and_not_at_it(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    grant = await store.grant(10)
    await trio.sleep(9.999)
    assert await store.keepalive(grant.lease_id) == 10
    await trio.sleep(10)
    assert await store.keepalive(grant.lease_id) == 0
