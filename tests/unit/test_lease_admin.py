"""What an operator sees of the leases, and may do to them, beside living daemons."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayd.core.leases.admin import (
    Inventory,
    ReservationError,
    compose_inventory,
    make_release,
    make_reservation,
    render_inventory,
)
from overlayd.core.leases.store import Committed, Put, Refused, Transaction
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.addresses import Subnet
from overlayd.core.status.status import Verdict
from overlayd.store.memory import MemoryStore
from overlayd.testing.simulation.host import SimulatedHost
from support.cluster import assert_no_subnet_is_held_twice, write_config

CONFIG = b'{"Network":"10.244.0.0/16"}'
FREE = Subnet.parse("10.244.50.0/24")


@asynccontextmanager
async def two_nodes(home: Path) -> AsyncGenerator[tuple[MemoryStore, list[SimulatedHost]]]:
    store = MemoryStore()
    await write_config(store, CONFIG)
    async with trio.open_nursery() as nursery:
        nodes = [SimulatedHost(number, store, home, nursery) for number in (1, 2)]
        for node in nodes:
            await nursery.start(node.run)
        await trio.sleep(5)
        yield store, nodes
        assert_no_subnet_is_held_twice(nodes)
        nursery.cancel_scope.cancel()


def subnet_of(node: SimulatedHost) -> Subnet:
    assert node.keeper.served is not None
    return node.keeper.served.subnet


async def inventory(store: MemoryStore) -> Inventory:
    return compose_inventory(await store.snapshot())


async def test_the_list_names_every_lease_and_every_bad_record(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with two_nodes(tmp_path) as (store, nodes):
        await store.commit(Transaction((), (Put("subnets/junk", b"", 0), Put("overlayd/frozen", b"", 0))))
        found = await inventory(store)
        assert {(line.node, line.subnet, line.kind, line.held) for line in found.leases} == {
            (node.name, str(subnet_of(node)), "lease", True) for node in nodes
        }
        text = render_inventory(found)
        assert "claims are frozen" in text
        assert "[key-unknown]" in text
        assert all(f"id{node.number}" in text for node in nodes)


async def test_a_free_subnet_is_reserved_and_waits_for_its_node(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with two_nodes(tmp_path) as (store, nodes):
        assert isinstance(await store.commit(make_reservation(await store.snapshot(), FREE, "id3")), Committed)
        await trio.sleep(5)
        line = next(line for line in (await inventory(store)).leases if line.subnet == str(FREE))
        assert (line.kind, line.held, line.node_id) == ("reservation", False, "id3")
        assert [node.answer().verdict for node in nodes] == [Verdict.HEALTHY] * 2, "it troubles nobody"
        async with trio.open_nursery() as nursery:
            late = SimulatedHost(3, store, tmp_path, nursery)
            await nursery.start(late.run)
            await trio.sleep(5)
            assert (subnet_of(late), late.belief) == (FREE, Belief.HELD)
            line = next(line for line in (await inventory(store)).leases if line.subnet == str(FREE))
            assert (line.kind, line.held, line.node) == ("reservation", True, "n3")
            nursery.cancel_scope.cancel()


async def test_a_lease_in_use_becomes_a_reservation_and_a_lease_again_without_a_break(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with two_nodes(tmp_path) as (store, [node, _]):
        subnet, grant = subnet_of(node), node.keeper.lease_id
        await store.commit(make_reservation(await store.snapshot(), subnet, "id1"))
        await trio.sleep(60)
        assert (subnet_of(node), node.belief, node.keeper.lease_id) == (subnet, Belief.HELD, grant)
        assert node.keeper.held is not None
        assert node.keeper.held.is_reservation
        await store.commit(make_release(await store.snapshot(), subnet, force=False))
        await trio.sleep(60)
        assert (subnet_of(node), node.belief, node.keeper.lease_id) == (subnet, Belief.HELD, grant)
        snapshot = await store.snapshot()
        assert not snapshot.own
        assert all(record.lease_id for record in snapshot.subnets)


async def test_what_is_refused_says_why(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (store, [node, _]):
        snapshot, mine = await store.snapshot(), subnet_of(node)
        for subnet, who, reason in [
            (mine, "id9", "is leased to n1: release it first"),
            (Subnet.parse("10.244.50.0/25"), "id9", "is not a /24"),
            (Subnet.parse("192.168.0.0/24"), "id9", "is outside"),
            (FREE, "", "is no node id"),
            (FREE, "\x1b[2J", "is no node id"),
        ]:
            with pytest.raises(ReservationError, match=reason):
                make_reservation(snapshot, subnet, who)
        with pytest.raises(ReservationError, match=r"no lease of 10.244.50.0/24"):
            make_release(snapshot, FREE, force=True)
        with pytest.raises(ReservationError, match=r"leased to n1, and may be in use.*--force"):
            make_release(snapshot, mine, force=False)


async def test_a_transaction_on_old_news_is_refused(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with two_nodes(tmp_path) as (store, _):
        old = await store.snapshot()
        await store.commit(make_reservation(old, FREE, "id3"))
        assert isinstance(await store.commit(make_reservation(old, FREE, "id4")), Refused)
        reserved = await store.snapshot()
        async with trio.open_nursery() as nursery:
            late = SimulatedHost(3, store, tmp_path, nursery)
            await nursery.start(late.run)
            await trio.sleep(5)
            assert isinstance(await store.commit(make_release(reserved, FREE, force=False)), Refused)
            nursery.cancel_scope.cancel()
        await write_config(store, CONFIG)
        assert isinstance(await store.commit(make_reservation(old, Subnet.parse("10.244.51.0/24"), "x")), Refused)


async def test_force_takes_even_what_can_not_be_read(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with two_nodes(tmp_path) as (store, _):
        await store.commit(Transaction((), (Put("subnets/10.244.50.0-24", b"junk", 0),)))
        with pytest.raises(ReservationError, match="has no known owner"):
            make_release(await store.snapshot(), FREE, force=False)
        assert isinstance(await store.commit(make_release(await store.snapshot(), FREE, force=True)), Committed)
        assert len((await store.snapshot()).subnets) == 2
