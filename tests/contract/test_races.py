"""Many daemons at the same instant, on a real etcd: distinct subnets, nobody gives up, the one too many waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from overlayd.core.keeper import Belief, Waiting
from overlayd.core.store import Store
from overlayd.store.etcd import open_etcd
from overlayd.testing.line import Cut
from support.cluster import SimulatedNode, assert_no_subnet_is_held_twice, write_config
from support.etcd import Etcd

SUBNETS = 50
PATIENCE = 60
"""Seconds; on an idle machine all is done in a few."""
CONFIG = b'{"Network":"10.244.0.0/16","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.%d.0"}' % SUBNETS


@pytest.fixture
async def store() -> AsyncGenerator[Store]:
    with Etcd() as etcd:
        async with open_etcd([etcd.endpoint], "/race") as store:
            yield store


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.05)


@asynccontextmanager
async def waiting_at_the_barrier(store: Store, home: Path, count: int) -> AsyncGenerator[list[SimulatedNode]]:
    """Daemons that have all read the store, and wait for a network config to appear in it."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        nodes = [SimulatedNode(number, store, home, nursery) for number in range(1, count + 1)]
        for node in nodes:
            nursery.start_soon(node.run)
        await until(lambda: all(node.daemon.answer().status.in_sync for node in nodes))
        yield nodes
        assert_no_subnet_is_held_twice(nodes)
        nursery.cancel_scope.cancel()


async def test_fifty_daemons_race_for_fifty_subnets(store: Store, tmp_path: Path) -> None:
    async with waiting_at_the_barrier(store, tmp_path, SUBNETS) as nodes:
        await write_config(store, CONFIG)
        await until(lambda: all(node.belief is Belief.HELD for node in nodes))
        assert len({node.keeper.served.subnet for node in nodes if node.keeper.served}) == SUBNETS
        assert len((await store.snapshot()).subnets) == SUBNETS


async def test_one_too_many_waits_and_is_served_as_soon_as_a_subnet_is_freed(store: Store, tmp_path: Path) -> None:
    async with waiting_at_the_barrier(store, tmp_path, SUBNETS + 1) as nodes:
        await write_config(store, CONFIG)
        await until(lambda: sum(node.belief is Belief.HELD for node in nodes) == SUBNETS)
        [loser] = [node for node in nodes if node.belief is not Belief.HELD]
        await until(lambda: loser.keeper.waits_for is Waiting.SUBNET)
        leaver = next(node for node in nodes if node is not loser)
        held = leaver.keeper.held
        assert held is not None
        leaver.line.sever(Cut.SILENT)  # it will not claim it back
        await store.revoke(held.lease_id)
        await until(lambda: loser.belief is Belief.HELD)
        assert loser.keeper.served is not None
        assert loser.keeper.served.subnet == held.subnet
        # revoking by hand is outside the promise: the leaver does not know yet
        leaver.line.mend()
        await until(lambda: leaver.belief is not Belief.HELD)
