"""A simulated host: a kernel, a clock, a line to the store, and one life of the real daemon after the other."""

from __future__ import annotations

import random
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import trio

from overlayd.core.host.preflight import PreflightRequest
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.kernel.driver import Failure, Hints, Operation, Scope
from overlayd.core.kernel.items import (
    ROUTE_PROTOCOL,
    Address,
    FdbEntry,
    KernelState,
    Link,
    Neighbour,
    VxlanKind,
)
from overlayd.core.leases.keeper import KeeperState, belief
from overlayd.core.leases.store import Store
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.addresses import Mac
from overlayd.core.network.backend import Backend
from overlayd.core.network.view import Underlay
from overlayd.core.status.problem import Problem
from overlayd.core.status.status import StatusAnswer
from overlayd.host.cleanup_state import CleanupStateFile
from overlayd.host.identity import Identity
from overlayd.node.daemon import Daemon, HostEdges, Settings
from overlayd.testing.kernel import FakeKernel, ForeignLink, ForeignRoute
from overlayd.testing.scheduling import stop_timers
from overlayd.testing.store_link import StoreLink
from overlayd.testing.trace import Trace

PREFIX = "/coreos.com/network"
UNDERLAY = IPv4Network("10.99.0.0/16")
SCOPE = Scope(frozenset({"eth0"}))
DECOY = "ovl.77"
"""A device that is named like one of ours, and is none."""
here: ContextVar[SimulatedHost | None] = ContextVar("here", default=None)
"""The host whose daemon a task belongs to; tasks inherit it from those that start them."""


class SimulatedHost:
    """`number`, from 1 on, gives it its name, its address and its identity.

    `rate` is how many seconds its CLOCK_BOOTTIME counts in a true one.  `asked` is called for each request to the
    store, `observed` for each look at the kernel, `applied` after each change of it.
    """

    def __init__(
        self,
        number: int,
        seed: object,
        ttl: int,
        rate: float,
        home: Path,
        store: Store,
        network: trio.Nursery,
        trace: Trace,
        backends: Mapping[str, type[Backend]],
    ) -> None:
        self.number = number
        self.name = f"n{number}"
        self.node_id = f"id{number}"
        self.mac = Mac(b"\x02" + number.to_bytes(5, "big"))
        self.address = _address(number)
        self.preflight: tuple[Problem, ...] = ()
        self.subnet_file = home / f"{self.name}.env"
        self.kernel = FakeKernel()
        furnish(self.kernel)
        self.note_foreign_state()
        self.line = StoreLink(
            self.name, store, network, random.Random(f"line {number} {seed}"), trace, self.awake, self._asked
        )
        self.daemon: Daemon | None = None
        self.asked: Callable[[SimulatedHost], None] = _ignore
        self.observed: Callable[[SimulatedHost], None] = _ignore
        self.applied: Callable[[SimulatedHost], None] = _ignore
        self._seed = seed
        self._settings = Settings(self.name, PREFIX, self.subnet_file, ttl)
        self._rate = rate
        self._trace = trace
        self._backends = backends
        self._lives = 0
        self._life = trio.CancelScope()
        self._wake: Callable[[float], None] | None = None
        self._stopped_at = 0.0
        self._woken = trio.Event()

    # --- the machine

    def clock(self) -> float:
        """CLOCK_BOOTTIME: it knows of no suspension."""
        return 1000.0 * self.number + trio.current_time() * self._rate

    def underlay(self) -> Underlay:
        return Underlay("eth0", self.address, (UNDERLAY,), 1500, self.address)

    def move(self) -> None:
        """Take another underlay address."""
        self.address += 0x100 * 32
        self.kernel.hint()

    def note_foreign_state(self) -> None:
        """From now on, what is not overlayd's is to stay as it is now."""
        self.foreign = foreign_state(self.kernel)

    # --- the process

    async def live(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> str:
        """One life of the daemon, which remembers files and kernel alone; why it ended, "" if it was killed."""
        self._lives += 1
        chance = random.Random(f"daemon {self.number} {self._lives} {self._seed}")
        host = HostEdges(
            _Driver(self),
            self._underlay,
            self._preflight,
            self._used_addresses,
            self.clock,
            CleanupStateFile(self.subnet_file.parent / self.name),
        )
        identity = Identity(self.node_id, self.mac)
        here.set(self)
        with trio.CancelScope() as self._life:
            self.daemon = Daemon(self._settings, identity, self.line, host, self._backends, chance)
            task_status.started()
            try:
                await self.daemon.run()
            except Exception:  # noqa: BLE001  # whatever ends a daemon goes to the report
                return traceback.format_exc()
        return ""

    def kill(self) -> None:
        """SIGKILL."""
        self.wake()
        self._life.cancel()
        self.daemon = None

    def stop(self) -> None:
        """Let the process stand still, from its next step on; time goes on, and so does CLOCK_BOOTTIME."""
        if self._wake is None:
            self._wake = stop_timers(self._life)
            self._stopped_at = trio.current_time()

    def wake(self, *, timers_late: bool = False) -> None:
        """Go on.  `timers_late`: the whole machine was asleep, so CLOCK_MONOTONIC, and trio's clock, have missed
        that time; else all timers that were due are due at once."""
        if self._wake is not None:
            self._wake(trio.current_time() - self._stopped_at if timers_late else 0.0)
            self._wake = None
            self._woken.set()
            self._woken = trio.Event()

    @property
    def is_running(self) -> bool:
        return self.daemon is not None and self._wake is None

    async def awake(self) -> None:
        while self._wake is not None:
            await self._woken.wait()

    # --- what can be seen of it

    @property
    def keeper(self) -> KeeperState | None:
        return None if self.daemon is None else self.daemon.keeper

    @property
    def believes(self) -> bool:
        """Whether it believes now that it holds its subnet."""
        return self.keeper is not None and belief(self.keeper, self.clock()) is Belief.HELD

    def answer(self) -> StatusAnswer | None:
        return None if self.daemon is None else self.daemon.answer()

    # --- its edges

    def _asked(self) -> None:
        self.asked(self)

    async def _underlay(self) -> Underlay:
        await self.awake()
        return self.underlay()

    async def _preflight(self, intent: PreflightRequest) -> tuple[Problem, ...]:
        await self.awake()
        return self.preflight

    async def _used_addresses(self) -> tuple[UsedAddress, ...]:
        await self.awake()
        return ()


class _Driver:
    """The host's kernel, as a process sees it that may be stopped."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    async def observe(self, scope: Scope) -> KernelState:
        await self._host.awake()
        self._host.observed(self._host)
        return await self._host.kernel.observe(scope)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        await self._host.awake()
        outcomes = await self._host.kernel.apply(operations)
        self._host.applied(self._host)
        return outcomes

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[Hints]:
        async with self._host.kernel.changes() as hints:
            yield _Hints(self._host, hints)


class _Hints:
    def __init__(self, host: SimulatedHost, hints: Hints) -> None:
        self._host = host
        self._hints = hints

    async def wait(self) -> None:
        await self._hints.wait()
        await self._host.awake()


def furnish(kernel: FakeKernel) -> None:
    """The underlay's interface, and what looks like overlayd's and is not."""
    kernel.add_link(ForeignLink("eth0"))
    kernel.add_link(ForeignLink("eth1"))
    kernel.add_link(
        Link("flannel.1", VxlanKind(1, IPv4Address("10.99.0.1"), "eth1", 8473), Mac(b"\x02foreig"[:6]), 1450)
    )
    kernel.add_link(ForeignLink(DECOY))
    kernel.add_route(ForeignRoute(IPv4Network("10.244.99.0/24"), "eth1", IPv4Address("10.1.0.9"), ROUTE_PROTOCOL))
    kernel.add_route(ForeignRoute(IPv4Network("10.244.98.0/24"), "eth0", IPv4Address("10.99.9.9"), 4))
    kernel.add_route(ForeignRoute(IPv4Network("0.0.0.0/0"), "eth0", IPv4Address("10.99.255.254"), 16))


def foreign_state(kernel: FakeKernel) -> frozenset[object]:
    """All that is not overlayd's, by rules of its own: what `furnish` and faults put there."""
    found: list[object] = [link for name, link in kernel.links.items() if not _is_ours(name)]
    entries: tuple[Address | FdbEntry | Neighbour, ...] = (
        *kernel.addresses,
        *kernel.fdb.values(),
        *kernel.neighbours.values(),
    )
    found += [entry for entry in entries if not _is_ours(entry.link)]
    for routes in kernel.routes.values():
        for route in routes:
            is_direct = route.protocol == ROUTE_PROTOCOL and route.link == "eth0"
            if not _is_ours(route.link) and not is_direct:
                found.append(route)
    return frozenset(found)


def _is_ours(name: str) -> bool:
    return name.startswith("ovl.") and name != DECOY


def _address(number: int) -> IPv4Address:
    return UNDERLAY[number // 200 * 256 + number % 200 + 1]


def _ignore(_: SimulatedHost) -> None:
    pass
