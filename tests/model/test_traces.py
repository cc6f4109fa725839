"""Real daemons on a real etcd, with lines that lose messages, crashes and an etcd that fails: all of it is
replayed through the model, which must allow every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from overlayd.core.leases.store import CONFIG, Committed, Delete, Put, Refused, StoreError, Transaction
from overlayd.core.leases.tenure import Belief
from overlayd.store.etcd import open_etcd
from overlayd.testing.simulation.host import SimulatedHost
from overlayd.testing.store_link import Cut, LinkConditions
from support.etcd import Etcd
from support.traces import KeeperTrace, NotAllowed, RecordingStore, read_history, recorded_steps, replay

CONFIG_TEXT = b'{"Network":"10.244.0.0/16","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.4.0"}'
NODES = 5
"""One more than there are subnets."""


async def record(home: Path, outage: float, calm: float) -> KeeperTrace:
    """`outage` seconds that a node is cut off for, `calm` seconds to come to rest in the end."""
    trace = KeeperTrace()
    with Etcd() as etcd, recorded_steps(trace):
        async with open_etcd([etcd.endpoint], "/trace") as real, trio.open_nursery() as nursery:
            store = RecordingStore(real, trace)

            async def write(*actions: Put | Delete) -> None:
                trace.external.append(Transaction((), actions))
                with trio.fail_after(30):
                    while True:
                        try:
                            await store.commit(trace.external[-1])
                        except StoreError:
                            await trio.sleep(0.2)
                        else:
                            return

            nodes = [SimulatedHost(number, store, home, nursery, ttl=30) for number in range(1, NODES + 1)]
            for node in nodes:
                await nursery.start(node.run)
            await write(Put(CONFIG, CONFIG_TEXT, 0))
            await until(lambda: sum(node.belief is Belief.HELD for node in nodes) == NODES - 1)
            for node in nodes:
                node.store_link.conditions = replace(node.store_link.conditions, lose=0.2)
            nodes[0].kill()
            await nursery.start(nodes[0].run)
            nodes[1].store_link.sever(Cut.SILENT)
            etcd.kill()
            await trio.sleep(1)
            etcd.start()  # not by a thread: etcd would be killed when that ends
            held = next(node.keeper.held for node in nodes[2:] if node.keeper.held is not None)
            await write(Put(f"subnets/{str(held.subnet).replace('/', '-')}", b"damaged", held.lease_id))
            crashing = next(place for place in (2, 3, 4) if nodes[place].keeper.held is not held)
            nodes[crashing].kill()
            await nursery.start(nodes[crashing].run)
            await trio.sleep(outage)
            for node in nodes:
                node.store_link.conditions = LinkConditions()
            nodes[1].store_link.mend()
            await trio.sleep(calm)
            await until(lambda: sum(node.belief is Belief.HELD for node in nodes) == NODES - 1)
            nursery.cancel_scope.cancel()
        async with open_etcd([etcd.endpoint], "/trace") as real:
            await read_history(real, trace)
    return trace


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(90):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_every_step_of_real_daemons_is_allowed(tmp_path: Path) -> None:
    trace = await record(tmp_path, outage=3, calm=2)
    assert replay(trace) > 50
    _assert_that_tampering_shows(trace)


@pytest.mark.long
async def test_every_step_is_allowed_when_grants_expire(tmp_path: Path) -> None:
    trace = await record(tmp_path, outage=45, calm=10)
    assert replay(trace) > 100


def _assert_that_tampering_shows(trace: KeeperTrace) -> None:
    """Each strand, altered in one place, is found out."""
    won = next(n for n, request in enumerate(trace.requests) if isinstance(request.outcome, Committed))
    refused = Refused(trace.requests[won].outcome.revision)  # type: ignore[union-attr]
    with pytest.raises(NotAllowed):
        replay(_with_request(trace, won, refused))
    with pytest.raises(NotAllowed):
        replay(_copy(trace, history=trace.history[:-1]))
    last = trace.steps[-1]
    forged = replace(last, after=replace(last.after, until=last.after.until + 1))
    with pytest.raises(NotAllowed):
        replay(_copy(trace, steps=[*trace.steps[:-1], forged]))
    with pytest.raises(NotAllowed):
        replay(_copy(trace, external=[]))


def _with_request(trace: KeeperTrace, number: int, outcome: Refused) -> KeeperTrace:
    requests = [*trace.requests]
    requests[number] = replace(requests[number], outcome=outcome)
    return _copy(trace, requests=requests)


def _copy(trace: KeeperTrace, **changes: object) -> KeeperTrace:
    return replace(trace, **changes)  # type: ignore[arg-type]
