"""A cluster without a machine: whole daemons, one store in memory, a fake kernel each, all on a mock clock.

What can go wrong between a daemon and the store is played by its `line` (overlayd.testing.store_link).  Here a
test says what happens, step by step; chance says it in overlayd.testing.simulation.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import trio

from overlayd.core.firewall.conflicts import ForeignFirewalls
from overlayd.core.host.preflight import PreflightRequest
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.kernel.items import ROUTE_PROTOCOL
from overlayd.core.leases.keeper import KeeperState, belief
from overlayd.core.leases.store import CONFIG, Delete, Put, Store, Transaction
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.addresses import Mac
from overlayd.core.network.view import Underlay
from overlayd.core.status.problem import Problem
from overlayd.host.cleanup_state import CleanupStateFile
from overlayd.host.identity import Identity
from overlayd.node.daemon import Daemon, HostEdges, Settings
from overlayd.plugins import load_backends
from overlayd.testing.kernel import FakeKernel, ForeignLink
from overlayd.testing.store import SimulatedStore
from overlayd.testing.store_link import StoreLink
from overlayd.testing.trace import Trace

VXLAN = b'{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
"""A network config with room for everybody."""
FLANNEL = (
    b'{"PublicIP":"10.99.0.77","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"7a:eb:33:ad:22:5c"}}'
)
"""The record of a flannel node."""


def room_for(subnets: int) -> bytes:
    """A network config with so many subnets of length 24."""
    return (
        b'{"Network":"10.244.0.0/16","SubnetLen":24,"SubnetMin":"10.244.1.0","SubnetMax":"10.244.%d.0"}' % subnets
    )


class SimulatedNode:
    """A daemon, its kernel and its line, on which messages travel in the nursery `network`.

    `number` gives it its underlay address and its identity; `asked` counts its requests, watches aside.
    """

    def __init__(
        self,
        number: int,
        store: Store,
        home: Path,
        network: trio.Nursery,
        seed: int = 0,
        ttl: int = 60,
        **settings: Any,
    ) -> None:
        self.number = number
        self.asked = 0
        chance = random.Random(f"line {number} {seed}")
        self.line = StoreLink(
            f"node{number}", store, network, chance, Trace(), trio.lowlevel.checkpoint, self._count_request
        )
        self.kernel = FakeKernel()
        self.kernel.add_link(ForeignLink("eth0"))
        self.address = IPv4Address(f"10.99.0.{number}")
        self.subnet_file = home / f"subnet{number}.env"
        self._settings = Settings(f"node{number}", "/coreos.com/network", self.subnet_file, ttl, **settings)
        self._seed = seed
        self._starts = 0
        self.preflight: tuple[Problem, ...] = ()
        self.used_addresses: tuple[UsedAddress, ...] = ()
        self.others = ForeignFirewalls()
        self.cleanup_state = CleanupStateFile(home / f"run{number}")
        self.daemon = self._new_daemon()

    def _count_request(self) -> None:
        self.asked += 1

    def _new_daemon(self) -> Daemon:
        self._starts += 1
        identity = Identity(f"id{self.number}", Mac(bytes([2, 0, 0, 0, 0, self.number])))
        host = HostEdges(
            self.kernel,
            self._underlay,
            self._preflight,
            self._used_addresses,
            trio.current_time,
            self.cleanup_state,
            others=self._look_at_others,
        )
        chance = random.Random(f"daemon {self.number} {self._starts} {self._seed}")
        return Daemon(self._settings, identity, self.line, host, load_backends(), chance)

    async def _underlay(self) -> Underlay:
        return Underlay("eth0", self.address, (IPv4Network("10.99.0.0/16"),), 1500, self.address)

    async def _used_addresses(self) -> tuple[UsedAddress, ...]:
        return self.used_addresses

    async def _look_at_others(self) -> ForeignFirewalls:
        return self.others

    async def _preflight(self, intent: PreflightRequest) -> tuple[Problem, ...]:
        return self.preflight

    async def run(self, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """One life of the daemon; another call is another life, with nothing remembered but files and kernel."""
        if self._starts > 1 or self.keeper.store_view is not None:
            self.daemon = self._new_daemon()
        with trio.CancelScope() as life:
            task_status.started(life)
            await self.daemon.run()

    @property
    def keeper(self) -> KeeperState:
        return self.daemon.keeper

    @property
    def belief(self) -> Belief:
        return belief(self.keeper, trio.current_time())


@asynccontextmanager
async def cluster(
    home: Path, count: int, config: bytes | None = VXLAN, ttl: int = 60
) -> AsyncGenerator[tuple[SimulatedStore, list[SimulatedNode], trio.Nursery]]:
    """So many nodes that have found each other, if they have a config; all ends when the context does."""
    store = SimulatedStore(lambda: None)
    if config is not None:
        await write_config(store, config)
    async with trio.open_nursery() as nursery:
        nodes = [SimulatedNode(number, store, home, nursery, ttl=ttl) for number in range(1, count + 1)]
        for node in nodes:
            nursery.start_soon(node.run)
        await trio.sleep(5 if nodes else 0)
        yield store, nodes, nursery
        nursery.cancel_scope.cancel()


async def write_config(store: Store, config: bytes) -> None:
    await put(store, CONFIG, config)


async def put(store: Store, name: str, value: bytes, lease_id: int = 0) -> None:
    await store.commit(Transaction((), (Put(name, value, lease_id),)))


async def delete(store: Store, name: str) -> None:
    await store.commit(Transaction((), (Delete(name),)))


def subnet_of(node: SimulatedNode) -> str:
    served = node.keeper.served
    assert served is not None
    return str(served.subnet)


def key_of(node: SimulatedNode) -> str:
    return "subnets/" + subnet_of(node).replace("/", "-")


def codes(node: SimulatedNode) -> set[str]:
    return {problem.code for problem in node.daemon.answer().status.problems}


def routes(node: SimulatedNode) -> set[str]:
    """The destinations of the routes that the daemon has set."""
    return {
        str(destination)
        for destination, found in node.kernel.routes.items()
        if any(route.protocol == ROUTE_PROTOCOL for route in found)
    }


def assert_no_subnet_is_held_twice(nodes: list[SimulatedNode]) -> None:
    """The promise: of the nodes that believe that they hold their subnet, no two overlap."""
    holders = [node for node in nodes if node.belief is Belief.HELD and node.keeper.held is not None]
    for place, one in enumerate(holders):
        for other in holders[place + 1 :]:
            mine, theirs = one.keeper.held, other.keeper.held
            assert mine is not None
            assert theirs is not None
            assert not mine.subnet.overlaps(theirs.subnet), f"node {one.number} and {other.number}: {mine.subnet}"
