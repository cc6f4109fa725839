"""Thousands of daemons that come back at once do not trample the store."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import IPv4Address

import pytest
import trio

from overlayd.core.leases.codec import format_subnet_name, parse_lease
from overlayd.core.leases.keeper.claimer import EtcdClaimer
from overlayd.core.leases.keeper.state import KeeperState, StoreView, StoreViewed
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.store import CONFIG, Changes, Put, Transaction
from overlayd.core.leases.subnets import subnet_at
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.config import parse_config
from overlayd.node.lease_runner import LeaseRunner
from overlayd.node.store_watch import follow
from overlayd.store.leases import KeeperClaims, RecordSource
from overlayd.testing.scheduling import run_seeded
from overlayd.testing.store import SimulatedStore
from overlayd.testing.store_link import Cut, StoreLink
from overlayd.testing.trace import Trace

CONFIG_TEXT = b'{"Network":"10.0.0.0/8","SubnetLen":24}'
TTL = 600
SHARE = 0.45
"""Requests in the busiest second, for each daemon."""


class QuietStore(SimulatedStore):
    """Its watches hear only that they live: news of all to all would only cost time here."""

    async def next_changes(self, seen: int) -> Changes:
        await trio.sleep_forever()
        raise AssertionError


class ForgetfulSource(RecordSource):
    """Asks, and forgets the answer: a memory of the others would only cost time here."""

    async def refresh(self) -> None:
        await self._store.snapshot()


class OwnView:
    """The knowledge of one node: its own record alone, as it is at this instant."""

    def __init__(self, store: SimulatedStore, number: int) -> None:
        self._store = store
        self._config = parse_config(CONFIG_TEXT)
        self._subnet = subnet_at(self._config, number)
        node_id = f"id{number}"
        self._wanted = Attributes((IPv4Address(0x0A630000 + number),), node_id=node_id, incarnation="1")
        self.start = KeeperState(node_id, "1", TTL, previous=self._subnet)

    def __call__(self) -> StoreViewed:
        record = self._store.records.get(format_subnet_name(self._subnet))
        leases = (parse_lease(record),) if record is not None else ()
        config = self._store.records[CONFIG].mod_revision
        taken = tuple(lease.subnet for lease in leases)
        return StoreViewed(StoreView(self._store.revision, config, self._config, leases, taken), self._wanted)


class Small:
    """The part of a daemon that asks the store: the real loops, with the little to decide on that they need."""

    def __init__(self, number: int, store: SimulatedStore, network: trio.Nursery, asked: Counter[int]) -> None:
        self._chance = random.Random(number)

        def count() -> None:
            asked[int(trio.current_time())] += 1

        self.line = StoreLink(
            f"id{number}", store, network, self._chance, Trace(), trio.lowlevel.checkpoint, count
        )
        self._source, view = ForgetfulSource(self.line), OwnView(store, number)
        claims = KeeperClaims(self.line, self._source, EtcdClaimer(view.start), view, trio.current_time)
        self.leasing = LeaseRunner(claims, lambda *_: None, trio.current_time, self._chance)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, self._source, lambda _: None, self._chance)
            nursery.start_soon(self.leasing.run)


def busiest_seconds(count: int, outage: float, how: Cut) -> tuple[int, int]:
    """The most requests of so many nodes in one second: in peace, and after an outage of so many seconds."""

    async def main() -> tuple[int, int]:
        store = QuietStore(lambda: None)
        await store.commit(Transaction((), (Put(CONFIG, CONFIG_TEXT, 0),)))
        asked: Counter[int] = Counter()
        async with trio.open_nursery() as network:
            nodes = [Small(number, store, network, asked) for number in range(count)]
            for node in nodes:
                network.start_soon(node.run)
                await trio.sleep(300 / count)
            await trio.sleep(200)
            for node in nodes:
                node.line.sever(how)
            await trio.sleep(outage)
            for node in nodes:
                node.line.mend()
            back = trio.current_time()
            await trio.sleep(400)
            now = trio.current_time()
            assert all(node.leasing.tenure.belief(now) is Belief.HELD for node in nodes)
            network.cancel_scope.cancel()
        peace = max(asked[second] for second in range(int(back - outage) - 100, int(back - outage)))
        return peace, max(asked[second] for second in range(int(back), int(now)))

    return run_seeded(main, 1)


@pytest.mark.parametrize(("outage", "how"), [(1.0, Cut.REFUSED), (60.0, Cut.REFUSED), (60.0, Cut.SILENT)])
def test_a_store_that_is_back_is_not_trampled(outage: float, how: Cut) -> None:
    peace, busiest = busiest_seconds(150, outage, how)
    assert peace < 150 / 10
    assert busiest < 150 * SHARE


@pytest.mark.long
@pytest.mark.parametrize("outage", [1.0, 60.0])
def test_two_thousand_do_not_trample_it_either(outage: float) -> None:
    _, busiest = busiest_seconds(2000, outage, Cut.REFUSED)
    assert busiest < 2000 * SHARE
