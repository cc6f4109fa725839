"""Many daemons at the same instant, on a real etcd: distinct subnets, nobody gives up, the one too many waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from overlayd.core.leases.tenure import Belief, Waiting
from overlayd.store.etcd import open_etcd
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store_link import Cut
from support.cluster import assert_no_subnet_is_held_twice, room_for, write_config
from support.etcd import Etcd

SUBNETS = 50
PATIENCE = 60
"""Seconds; on an idle machine all is done in a few."""


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_fifty_daemons_race_for_fifty_subnets_and_one_more_gets_the_first_that_is_freed(
    tmp_path: Path,
) -> None:
    with Etcd() as etcd:
        async with open_etcd([etcd.endpoint], "/race") as store, trio.open_nursery() as nursery:
            nodes = [SimulatedHost(number, store, tmp_path, nursery) for number in range(1, SUBNETS + 1)]
            for node in nodes:
                await nursery.start(node.run)
            await until(lambda: all(node.answer().status.in_sync for node in nodes))
            await write_config(store, room_for(SUBNETS))  # the barrier, at which all of them waited
            await until(lambda: all(node.belief is Belief.HELD for node in nodes))
            assert len({node.keeper.served.subnet for node in nodes if node.keeper.served}) == SUBNETS
            assert len((await store.snapshot()).subnets) == SUBNETS
            assert_no_subnet_is_held_twice(nodes)

            late = SimulatedHost(SUBNETS + 1, store, tmp_path, nursery)
            await nursery.start(late.run)
            await until(lambda: late.keeper.waits_for is Waiting.SUBNET)
            leaver = nodes[0]
            held = leaver.keeper.held
            assert held is not None
            leaver.store_link.sever(Cut.SILENT)  # it will not claim it back
            await store.revoke(held.lease_id)
            await until(lambda: late.belief is Belief.HELD)
            assert late.keeper.served is not None
            assert late.keeper.served.subnet == held.subnet
            # revoking by hand is outside the promise: the leaver does not know yet
            leaver.store_link.mend()
            await until(lambda: leaver.belief is not Belief.HELD)
            assert_no_subnet_is_held_twice([*nodes, late])
            nursery.cancel_scope.cancel()
