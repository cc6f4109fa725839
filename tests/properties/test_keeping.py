"""Several daemons on one store, over bad lines: no subnet is ever held twice, and in calm everyone has one."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from overlayd.core.leases.tenure import Belief, Waiting
from overlayd.store.memory import MemoryStore
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store_link import Cut, LinkConditions
from support.cluster import assert_no_subnet_is_held_twice, write_config

SMALL = b'{"Network":"10.244.0.0/21","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.4.0"}'
"""Four subnets for five nodes: somebody always waits for one to come free, and takes it at once."""
NODES, SUBNETS, TTL = 5, 4, 30

delays = st.sampled_from([0.0, 0.1, 2.0, 6.0])
"""Seconds at most that a message is under way."""
troubles = st.lists(
    st.tuples(
        st.sampled_from(["cut", "mend", "lossy", "sound", "restart", "wait"]),
        st.integers(0, NODES - 1),
        delays,
        st.sampled_from([0.2, 3.0, 30.0, 90.0]),
    ),
    max_size=12,
)


@given(troubles, delays, st.integers(0, 10_000))
@settings(max_examples=30)
def test_no_subnet_is_held_twice(events: list[tuple[str, int, float, float]], delay: float, seed: int) -> None:
    async def main() -> None:
        store = MemoryStore()
        await write_config(store, SMALL)
        with tempfile.TemporaryDirectory() as home:
            async with trio.open_nursery() as nursery:
                nodes = [
                    SimulatedHost(number, store, Path(home), nursery, seed=seed, ttl=TTL)
                    for number in range(1, NODES + 1)
                ]
                nursery.start_soon(_watch_promise, nodes)
                for node in nodes:
                    node.store_link.conditions = LinkConditions(delay=delay)
                    await nursery.start(node.run)
                for event, which, line_delay, pause in events:
                    line = nodes[which].store_link
                    line.conditions = replace(line.conditions, delay=line_delay)
                    match event:
                        case "cut":
                            line.sever(Cut.SILENT)
                        case "mend":
                            line.mend()
                        case "lossy":
                            line.conditions = LinkConditions(lose=0.3, repeat=0.3, delay=line_delay)
                        case "sound":
                            line.conditions = LinkConditions(delay=line_delay)
                        case "restart":
                            nodes[which].kill()
                            await trio.sleep(pause)
                            await nursery.start(nodes[which].run)
                    await trio.sleep(pause)
                for node in nodes:
                    node.store_link.mend()
                    node.store_link.conditions = LinkConditions()
                await trio.sleep(4 * TTL)
                holders = [node for node in nodes if node.belief is Belief.HELD]
                assert len({node.keeper.held.subnet for node in holders if node.keeper.held}) == SUBNETS
                assert [node.keeper.waits_for for node in nodes if node not in holders] == [Waiting.SUBNET]
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def _watch_promise(nodes: list[SimulatedHost]) -> None:
    while True:
        assert_no_subnet_is_held_twice(nodes)
        await trio.sleep(0.25)
