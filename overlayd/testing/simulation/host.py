"""The real daemon on a simulated host: a fake kernel, a clock that may be wrong, and a link to the store.

Tests script hosts one by one, on a store of their choice; `overlayd.testing.simulation.world` joins many of them
and lets chance decide.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import trio

from overlayd.core.host.snapshot import HostQuestion, HostSnapshot
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope
from overlayd.core.kernel.items import (
    ROUTE_PROTOCOL,
    Address,
    FdbEntry,
    KernelState,
    Link,
    Neighbour,
    VxlanKind,
)
from overlayd.core.leases.keeper.claimer import EtcdClaimer
from overlayd.core.leases.keeper.state import KeeperState, belief
from overlayd.core.leases.store import Store
from overlayd.core.leases.tenure import Belief
from overlayd.core.network.addresses import IPAddress, Mac
from overlayd.core.network.backend import Backend
from overlayd.core.network.view import Underlay
from overlayd.core.status.status import StatusAnswer
from overlayd.host.cleanup_state import CleanupStateFile
from overlayd.host.identity import Identity
from overlayd.node.daemon import Daemon
from overlayd.node.settings import HostEdges, Settings
from overlayd.plugins import load_backends
from overlayd.store.leases import StoreLeases
from overlayd.testing.host_probe import FakeHostProbe
from overlayd.testing.kernel import FakeKernel, ForeignLink, ForeignRoute
from overlayd.testing.scheduling import stop_timers
from overlayd.testing.store_link import StoreLink
from overlayd.testing.trace import Trace

PREFIX = "/coreos.com/network"
UNDERLAY = IPv4Network("10.99.0.0/16")
SCOPE = Scope(frozenset({"eth0"}))
DECOY = "ovl.77"
"""A device with a name like one of ours, of a kind that overlayd never makes."""
here: ContextVar[SimulatedHost | None] = ContextVar("here", default=None)
"""The host whose daemon a task belongs to; a task inherits it from the one that starts it."""


class SimulatedHost:
    """A machine with one node on it: a kernel, a clock, a link to the store, and one daemon process at a time.

    `number`, from 1 on, gives it its name, its underlay address and its identity.  Messages to the store travel in
    the nursery `network`; `home` is the directory for its files.  `ttl` is the lease's, in seconds; `rate` is how
    many seconds CLOCK_BOOTTIME counts in a true one; `settings` are other fields of overlayd.node.daemon.Settings.

    What the daemon finds on the host is set at `probe` and `kernel`; with `is_kernel_silent` no system call of its
    driver and its probe returns, and each takes `kernel_latency` seconds.  `asked` is called for each request to
    the store, `looked` at each pass, `applied` after each change of it.
    """

    def __init__(
        self,
        number: int,
        store: Store,
        home: Path,
        network: trio.Nursery,
        *,
        seed: object = 0,
        ttl: int = 60,
        rate: float = 1.0,
        trace: Trace | None = None,
        backends: Mapping[str, type[Backend]] | None = None,
        **settings: Any,
    ) -> None:
        self.number = number
        self.name = f"n{number}"
        self.node_id = f"id{number}"
        self.mac = Mac(b"\x02" + number.to_bytes(5, "big"))
        self.subnet_file = home / f"{self.name}.env"
        self.kernel = FakeKernel()
        self.kernel.add_link(ForeignLink("eth0"))
        self.probe = FakeHostProbe(self.kernel, _address(number), UNDERLAY)
        self.is_kernel_silent = False
        self.kernel_latency = 0.0
        self.note_foreign_state()
        self.store_link = StoreLink(
            self.name,
            store,
            network,
            random.Random(f"line {number} {seed}"),
            trace or Trace(),
            self.wait_awake,
            self._asked,
        )
        self.asked: Callable[[SimulatedHost], None] = _ignore
        self.looked: Callable[[SimulatedHost], None] = _ignore
        self.applied: Callable[[SimulatedHost], None] = _ignore
        self._seed = seed
        self._settings = Settings(self.name, PREFIX, self.subnet_file, ttl, "eth0", **settings)
        self._rate = rate
        self._backends = load_backends() if backends is None else backends
        self._starts = 0
        self._daemon: Daemon | None = None
        self._process: trio.CancelScope | None = None
        self._wake: Callable[[float], None] | None = None
        self._stopped_at = 0.0
        self._woken = trio.Event()

    # --- the machine

    def clock(self) -> float:
        """Return CLOCK_BOOTTIME, in seconds: it counts through a suspension."""
        return 1000.0 * self.number + trio.current_time() * self._rate

    @property
    def address(self) -> IPAddress:
        """Its address on the underlay."""
        return self.probe.address

    def underlay(self) -> Underlay:
        return Underlay("eth0", self.address, (UNDERLAY,), 1500, self.address)

    def move(self) -> None:
        """Take another underlay address."""
        self.probe.address += 0x100 * 32
        self.kernel.hint()

    def note_foreign_state(self) -> None:
        """Declare what is not overlayd's in the kernel now to be what must stay."""
        self.foreign = foreign_state(self.kernel)

    # --- the process

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the daemon until it is killed; the next run remembers files and kernel alone.

        Raises what ends the daemon.  It is started once `keeper` and `answer` speak of this run.
        """
        self._starts += 1
        chance = random.Random(f"daemon {self.number} {self._starts} {self._seed}")
        cleanup_state = CleanupStateFile(self.subnet_file.parent / self.name)
        edges = HostEdges(_Driver(self), _Probe(self), self.clock, cleanup_state)
        identity = Identity(self.node_id, self.mac)
        here.set(self)
        with trio.CancelScope() as process:
            leases = StoreLeases(self.store_link)
            self._daemon = Daemon(self._settings, identity, leases, edges, self._backends, chance)
            self._process = process
            task_status.started()
            try:
                await self._daemon.run()
            finally:
                if self._process is process:
                    self._process = None

    def kill(self) -> None:
        """Send SIGKILL."""
        self.wake()
        if self._process is not None:
            self._process.cancel()
        self._process = None

    def stop(self) -> None:
        """Send SIGSTOP: the process does nothing from its next step on, while CLOCK_BOOTTIME goes on."""
        assert self._process is not None
        if self._wake is None:
            self._wake = stop_timers(self._process)
            self._stopped_at = trio.current_time()

    def wake(self, *, timers_late: bool = False) -> None:
        """Send SIGCONT.

        `timers_late`: the whole machine was suspended, so CLOCK_MONOTONIC, and trio's clock, have missed that
        time; else all timers that were due are due at once.
        """
        if self._wake is not None:
            self._wake(trio.current_time() - self._stopped_at if timers_late else 0.0)
            self._wake = None
            self._woken.set()
            self._woken = trio.Event()

    @property
    def is_up(self) -> bool:
        """Whether there is a process, be it stopped."""
        return self._process is not None

    @property
    def is_running(self) -> bool:
        return self.is_up and self._wake is None

    async def wait_awake(self) -> None:
        """Wait until the process is not stopped."""
        while self._wake is not None:
            await self._woken.wait()

    async def reach_kernel(self) -> None:
        """Wait until the process can make a system call, and the kernel answers it."""
        await self.wait_awake()
        if self.is_kernel_silent:
            await trio.sleep_forever()
        if self.kernel_latency:
            await trio.sleep(self.kernel_latency)

    # --- what a test sees of the process: once it has ended, what was true last

    @property
    def daemon(self) -> Daemon:
        assert self._daemon is not None, f"{self.name} has not been started"
        return self._daemon

    @property
    def keeper(self) -> KeeperState:
        claimer = self.daemon.claimer
        assert isinstance(claimer, EtcdClaimer)
        return claimer.state

    @property
    def belief(self) -> Belief:
        """What the node believes of its lease now.

        A killed daemon's belief lasts until its deadline: it leaves forwarding as it was, and the pods stay.
        """
        return Belief.UNCLAIMED if self._daemon is None else belief(self.keeper, self.clock())

    def answer(self) -> StatusAnswer:
        """Return the daemon's answer to a status query."""
        return self.daemon.answer()

    # --- the daemon's edges

    def _asked(self) -> None:
        self.asked(self)


class _Probe:
    """The host, as a process that may be stopped sees it."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    async def look(self, question: HostQuestion) -> HostSnapshot:
        await self._host.reach_kernel()
        self._host.looked(self._host)
        return await self._host.probe.look(question)

    def watch(self, on_change: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        return self._host.probe.watch(on_change)


class _Driver(Driver):
    """The host's kernel, as a process that may be stopped sees it."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self.kinds = host.kernel.kinds
        self.devices = host.kernel.devices

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        await self._host.reach_kernel()
        return await self._host.kernel.observe(scope, keys)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        await self._host.reach_kernel()
        outcomes = await self._host.kernel.apply(operations)
        self._host.applied(self._host)
        return outcomes

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        """Watch for changes; a stopped process hears of them once it goes on."""
        send, receive = trio.open_memory_channel[Keys](math.inf)

        async def pass_on() -> None:
            async for keys in receive:
                await self._host.wait_awake()
                on_change(keys)

        async with self._host.kernel.watch(send.send_nowait), trio.open_nursery() as nursery:
            nursery.start_soon(pass_on)
            yield
            nursery.cancel_scope.cancel()


def add_decoys(kernel: FakeKernel) -> None:
    """Add what looks like overlayd's and is not, and routes of others."""
    kernel.add_link(ForeignLink("eth1"))
    kernel.add_link(
        Link("flannel.1", VxlanKind(1, IPv4Address("10.99.0.1"), "eth1", 8473), Mac(b"\x02foreig"[:6]), 1450)
    )
    kernel.add_link(ForeignLink(DECOY))
    kernel.add_route(ForeignRoute(IPv4Network("10.66.99.0/24"), "eth1", IPv4Address("10.1.0.9"), ROUTE_PROTOCOL))
    kernel.add_route(ForeignRoute(IPv4Network("10.66.98.0/24"), "eth0", IPv4Address("10.99.9.9"), 4))
    kernel.add_route(ForeignRoute(IPv4Network("0.0.0.0/0"), "eth0", IPv4Address("10.99.255.254"), 16))


def foreign_state(kernel: FakeKernel) -> frozenset[object]:
    """List all that is not overlayd's, by a rule that the driver does not share."""
    found: list[object] = [link for name, link in kernel.links.items() if not is_ours(name)]
    entries: tuple[Address | FdbEntry | Neighbour, ...] = (
        *kernel.addresses,
        *kernel.fdb.values(),
        *kernel.neighbours.values(),
    )
    found += [entry for entry in entries if not is_ours(entry.link)]
    for routes in kernel.routes.values():
        for route in routes:
            is_direct = route.protocol == ROUTE_PROTOCOL and route.link == "eth0"
            if not is_ours(route.link) and not is_direct:
                found.append(route)
    return frozenset(found)


def is_ours(name: str) -> bool:
    """Tell whether a device is overlayd's, by a rule that the driver does not share."""
    return name.startswith("ovl.") and name != DECOY


def _address(number: int) -> IPv4Address:
    return UNDERLAY[(number - 1) // 200 * 256 + (number - 1) % 200 + 1]


def _ignore(_: SimulatedHost) -> None:
    pass
