"""The abstract store of the checker answers as the store in memory does, and so as etcd does."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd.core.leases.store import Delete, Field, Guard, Put, Snapshot, StoreRefused, Transaction
from overlayd.store.memory import MemoryStore
from support.model import store as stores
from support.model.store import AbstractStore

TTL = 30

names = st.sampled_from(("config", "subnets/a", "subnets/b", "overlayd/held/a", "overlayd/frozen"))
lease_ids = st.integers(1, 4)
guards = st.builds(Guard, names, st.sampled_from(Field), st.integers(0, 8))
puts = st.builds(Put, names, st.binary(max_size=2), st.just(0) | lease_ids)
transactions = st.builds(
    Transaction,
    st.lists(guards, max_size=2).map(tuple),
    st.lists(puts | st.builds(Delete, names), max_size=3, unique_by=lambda action: action.name).map(tuple),
)
requests = transactions | st.tuples(
    st.sampled_from(("grant", "keepalive", "revoke", "time passes")), st.integers(1, 40)
)


@given(st.lists(requests, max_size=30))
@settings(max_examples=300)
def test_the_abstract_store_answers_as_the_one_in_memory(script: list[Transaction | tuple[str, int]]) -> None:
    trio.run(_compare, script, clock=trio.testing.MockClock(autojump_threshold=0))


async def _compare(script: list[Transaction | tuple[str, int]]) -> None:
    real, model, granted = MemoryStore(), AbstractStore(), 0
    for request in script:
        if isinstance(request, Transaction):
            model, outcome = stores.commit(model, request)
            try:
                assert await real.commit(request) == outcome
            except StoreRefused:
                assert outcome is None
        else:
            what, number = request
            lease_id = number % 5
            match what:
                case "grant" if granted < 4:
                    granted += 1
                    assert (await real.grant(TTL)).lease_id == granted
                    model = stores.grant(model, granted, TTL)
                case "keepalive":
                    model, ttl = stores.keepalive(model, lease_id)
                    assert await real.keepalive(lease_id) == ttl
                case "revoke":
                    await real.revoke(lease_id)
                    model = stores.end(model, lease_id)
                case "time passes":
                    await trio.sleep(number)
                    model = _ended_in_time(model, number)
        assert await real.snapshot() == stores.snapshot(model)


def _ended_in_time(model: AbstractStore, seconds: float) -> AbstractStore:
    """The store in memory ends every lease when its time comes; of those that end together, the older first."""
    for one in sorted(model.grants, key=lambda one: (one.left, one.lease_id)):
        if one.left <= seconds:
            model = stores.end(model, one.lease_id)
    return stores.age(model, seconds)


def test_a_snapshot_has_all_that_a_daemon_reads() -> None:
    put = Transaction((), tuple(Put(name, b"", 0) for name in ("config", "subnets/a", "overlayd/frozen", "other")))
    model, _ = stores.commit(AbstractStore(), put)
    seen = stores.snapshot(model)
    assert isinstance(seen, Snapshot)
    assert [record.name for record in seen.records] == ["config", "subnets/a", "overlayd/frozen"]
