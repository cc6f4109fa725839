"""A cluster without a machine: whole daemons, one store in memory, a fake kernel each, all on a mock clock.

What can go wrong between a daemon and the store is played by `Line`: a request that never arrives, an answer that
never comes back, delay either way.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

import trio

from overlayd.backends import load_backends
from overlayd.core.keeper import Belief, KeeperState, belief
from overlayd.core.model import Mac, Underlay
from overlayd.core.preflight import Intent
from overlayd.core.problem import Problem
from overlayd.core.store import (
    CONFIG,
    Changes,
    Committed,
    Grant,
    Put,
    Refused,
    Snapshot,
    Store,
    StoreError,
    Transaction,
)
from overlayd.core.strays import Inhabitant
from overlayd.daemon import Daemon, Host, Settings
from overlayd.host.footprint import FootprintFile
from overlayd.host.identity import Identity
from overlayd.testing.kernel import FakeKernel, ForeignLink

T = TypeVar("T")


@dataclass
class Line:
    """One node's line to the store.  `lose` is the chance of each request, and of each answer, to get lost."""

    store: Store
    chance: random.Random
    lose: float = 0.0
    delay: float = 0.0
    """Seconds at most, each way."""
    cut: bool = False
    calls: int = 0
    """Requests so far, watches aside."""

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        self.calls += 1
        await self._travel()
        result = await call()
        await self._travel()
        return result

    async def _travel(self) -> None:
        await trio.sleep(self.chance.random() * self.delay)
        if self.cut or self.chance.random() < self.lose:
            await trio.sleep(1)
            raise StoreError("the line is down")

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncGenerator[AsyncIterator[Changes]]:
        async with self.store.watch(after) as watch:
            yield self._delayed(watch)

    async def _delayed(self, watch: AsyncIterator[Changes]) -> AsyncGenerator[Changes]:
        async for changes in watch:
            await self._travel()
            yield changes

    async def snapshot(self) -> Snapshot:
        return await self._call(self.store.snapshot)

    async def grant(self, ttl: int) -> Grant:
        return await self._call(lambda: self.store.grant(ttl))

    async def keepalive(self, lease_id: int) -> int:
        return await self._call(lambda: self.store.keepalive(lease_id))

    async def revoke(self, lease_id: int) -> None:
        await self._call(lambda: self.store.revoke(lease_id))

    async def commit(self, transaction: Transaction) -> Committed | Refused:
        return await self._call(lambda: self.store.commit(transaction))


class SimulatedNode:
    """A daemon, its kernel and its line.  `number` gives it its underlay address and its identity."""

    def __init__(
        self, number: int, store: Store, home: Path, seed: int = 0, ttl: int = 60, **settings: bool
    ) -> None:
        self.number = number
        self.line = Line(store, random.Random(f"line {number} {seed}"))
        self.kernel = FakeKernel()
        self.kernel.add_link(ForeignLink("eth0"))
        self.address = IPv4Address(f"10.99.0.{number}")
        self.subnet_file = home / f"subnet{number}.env"
        self._settings = Settings(f"node{number}", "/coreos.com/network", self.subnet_file, ttl, **settings)
        self._seed = seed
        self._starts = 0
        self.preflight: tuple[Problem, ...] = ()
        self.inhabitants: tuple[Inhabitant, ...] = ()
        self.footprint = FootprintFile(home / f"run{number}")
        self.daemon = self._new_daemon()

    def _new_daemon(self) -> Daemon:
        self._starts += 1
        identity = Identity(f"id{self.number}", Mac(bytes([2, 0, 0, 0, 0, self.number])))
        host = Host(
            self.kernel, self._underlay, self._preflight, self._inhabitants, trio.current_time, self.footprint
        )
        chance = random.Random(f"daemon {self.number} {self._starts} {self._seed}")
        return Daemon(self._settings, identity, self.line, host, load_backends(), chance)

    async def _underlay(self) -> Underlay:
        return Underlay("eth0", self.address, (IPv4Network("10.99.0.0/16"),), 1500, self.address)

    async def _inhabitants(self) -> tuple[Inhabitant, ...]:
        return self.inhabitants

    async def _preflight(self, intent: Intent) -> tuple[Problem, ...]:
        return self.preflight

    async def run(self, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """One life of the daemon; another call is another life, with nothing remembered but files and kernel."""
        if self._starts > 1 or self.keeper.sighting is not None:
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


async def write_config(store: Store, config: bytes) -> None:
    await store.commit(Transaction((), (Put(CONFIG, config, 0),)))


def assert_no_subnet_is_held_twice(nodes: list[SimulatedNode]) -> None:
    """The promise: of the nodes that believe that they hold their subnet, no two overlap."""
    holders = [node for node in nodes if node.belief is Belief.HELD and node.keeper.held is not None]
    for place, one in enumerate(holders):
        for other in holders[place + 1 :]:
            mine, theirs = one.keeper.held, other.keeper.held
            assert mine is not None
            assert theirs is not None
            assert not mine.subnet.overlaps(theirs.subnet), f"node {one.number} and {other.number}: {mine.subnet}"
