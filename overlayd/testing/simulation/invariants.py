"""The invariants of a simulated world; the first breach ends the scenario.

That no subnet is held twice is checked after each step of a daemon that changed its belief, and after each write
to the store; that foreign state is untouched, after each change of a kernel.  What takes time, as a peer's change
has to reach all nodes, is checked periodically, with a bound of its own.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from overlayd.core.kernel.datapath import Encap
from overlayd.core.kernel.items import ROUTE_PROTOCOL, KernelState
from overlayd.core.leases.keeper.state import KeeperState, belief
from overlayd.core.leases.lease_record import LeaseRecord
from overlayd.core.leases.tenure import Belief, Waiting
from overlayd.core.network.addresses import IPAddress, IPNetwork
from overlayd.core.status.status import STALE_AFTER, PeerState, Verdict
from overlayd.host.subnet_file import SubnetFile
from overlayd.testing.simulation.host import SCOPE, SimulatedHost, foreign_state, here, is_ours
from overlayd.testing.simulation.world import SimulatedWorld

QUIET = 45.0
"""Seconds after the last event within which a host has converged: two retries at their longest (15 s), or a
resync (30 s), and some more."""
CUT_NOTICED = 25.0
"""Seconds without the store after which no node reports itself healthy: a watch is taken for dead after 7."""
WINDOW = 10.0
"""Seconds over which requests and passes are counted."""
REQUESTS = 80
"""Of one daemon to the store in one window: a cluster in which everybody claims at once needs some."""
PASSES = 150
"""Listings of its kernel by one daemon in one window."""
STEPS = 50_000
"""Steps of tasks at one instant: more means a busy loop."""


@dataclass(frozen=True, slots=True)
class Breach:
    """`invariant` is the one that was broken; `text` says how."""

    invariant: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} broken at {self.at:.3f} s: {self.text}"


class Invariants(trio.abc.Instrument):
    """Watches a world; the first `breach` cancels `over`.  `look` is the period of checks, in seconds."""

    def __init__(self, look: float = 1.0) -> None:
        self.breach: Breach | None = None
        self.over = trio.CancelScope()
        self._look = look
        self._world: SimulatedWorld | None = None
        self._keepers: dict[int, KeeperState | None] = {}
        self._requests: defaultdict[int, deque[float]] = defaultdict(deque)
        self._passes: defaultdict[int, deque[float]] = defaultdict(deque)
        self._misrouted: dict[tuple[int, IPNetwork], float] = {}
        self._compared: dict[int, object] = {}
        self._steps = 0
        self._instant = 0.0

    def watch(self, world: SimulatedWorld) -> None:
        self._world = world
        world.written = self.no_subnet_is_held_twice
        for host in world.hosts:
            host.asked = self._count(self._requests, REQUESTS, "asks the store")
            host.looked = self._count(self._passes, PASSES, "looks at its host")
            host.applied = self.foreign_state_is_untouched

    def _break(self, invariant: str, text: str) -> None:
        if self.breach is None:
            self.breach = Breach(invariant, trio.current_time(), text)
            self.over.cancel()

    # --- at every step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        host = task.context.get(here)
        if host is None:
            return
        self._no_endless_instant()
        if (keeper := host.keeper) is not self._keepers.get(host.number):
            before = self._keepers.get(host.number)
            self._keepers[host.number] = keeper
            self._believed(host, before, keeper)
            self.status_is_never_too_good(host)

    def _no_endless_instant(self) -> None:
        now = trio.current_time()
        self._steps = self._steps + 1 if now == self._instant else 0
        self._instant = now
        if self._steps > STEPS:
            self._break("no-busy-loop", f"{STEPS} steps at one instant")

    def _believed(self, host: SimulatedHost, before: KeeperState | None, keeper: KeeperState) -> None:
        assert self._world is not None
        now = host.clock()
        old = _held(before, now)
        new = _held(keeper, now)
        if new != old:
            was, is_now = before and belief(before, now), belief(keeper, now)
            if is_now is not was or new is not None:
                self._world.trace.note(
                    host.name, f"{is_now.value} {keeper.served.subnet if keeper.served else ''}".rstrip()
                )
            if new is not None:
                self.no_subnet_is_held_twice()

    def no_subnet_is_held_twice(self) -> None:
        """Check that no two hosts believe that they hold overlapping subnets, while the assumptions hold."""
        world = self._world
        assert world is not None
        if trio.current_time() < world.by_hand_until:
            return
        if overlap := find_overlap(world.hosts):
            self._break("held-once", overlap)

    def status_is_never_too_good(self, host: SimulatedHost) -> None:
        """Check that a healthy host holds its subnet, and that its view of kernel and store is not stale."""
        assert self._world is not None
        answer = host.answer()
        if answer.verdict is not Verdict.HEALTHY:
            return
        if host.belief is not Belief.HELD:
            self._break(
                "status-honest", f"{host.name} reports healthy and does not believe that it holds a subnet"
            )
        if answer.now - answer.status.at > STALE_AFTER * answer.status.resync:
            self._break(
                "status-honest",
                f"{host.name} reports healthy by what it saw {answer.now - answer.status.at} s ago",
            )
        cut_for = self._world.cut_for(host)
        if cut_for > CUT_NOTICED:
            self._break(
                "status-honest",
                f"{host.name} reports healthy, {cut_for:.0f} s after it was cut off from the store",
            )

    def foreign_state_is_untouched(self, host: SimulatedHost) -> None:
        present = foreign_state(host.kernel)
        if present != host.foreign:
            changed = sorted(map(str, host.foreign ^ present))
            self._break("foreign-untouched", f"on {host.name}: {', '.join(changed)}")

    def _count(self, counts: dict[int, deque[float]], most: int, what: str) -> Callable[[SimulatedHost], None]:
        def count(host: SimulatedHost) -> None:
            now, times = trio.current_time(), counts[host.number]
            times.append(now)
            while times[0] < now - WINDOW:
                times.popleft()
            if len(times) > most:
                self._break("no-busy-loop", f"{host.name} {what} {len(times)} times in {WINDOW:.0f} s")

        return count

    # --- every few seconds

    async def look(self) -> None:
        """Check the periodic invariants for ever."""
        while True:
            await trio.sleep(self._look)
            await self.look_once()

    async def look_once(self) -> None:
        world = self._world
        assert world is not None
        for host, reason in world.ended:
            self._break("no-crash", f"{host.name} ended: {reason}")
        self.no_subnet_is_held_twice()
        for host in world.hosts:
            if host.is_running:
                self.status_is_never_too_good(host)
            self.foreign_state_is_untouched(host)
            self.no_route_is_stale(host)
            self.published_is_programmed(host)
        settled = [host for host in world.hosts if self._is_settled(host)]
        for host in settled:
            await self.kernel_is_as_desired(host)
        self.peers_agree(settled)

    def _is_settled(self, host: SimulatedHost) -> bool:
        world = self._world
        assert world is not None
        now = trio.current_time()
        quiet = world.quiet_for(host) > QUIET and now - world.changed_at > QUIET
        # a backup may have brought back a freeze of claims, which only clean_up ends
        return quiet and world.oracle.network is not None and not world.oracle.book.is_frozen

    async def kernel_is_as_desired(self, host: SimulatedHost) -> None:
        """Check that a settled host's kernel holds what follows from the store, and nothing else of ours."""
        world = self._world
        assert world is not None
        state = (world.changed_at, world.quiet_since(host), len(host.kernel.applied))
        if self._compared.get(host.number) == state:
            return
        actual, desired = await host.kernel.observe(SCOPE), world.oracle.desired_for(host)
        if actual != desired:
            missing = "; ".join(map(str, KernelState(desired.items - actual.items)))
            surplus = "; ".join(map(str, KernelState(actual.items - desired.items)))
            self._break("kernel-as-desired", f"{host.name} lacks: {missing}; it has beyond that: {surplus}")
        self._compared[host.number] = state

    def published_is_programmed(self, host: SimulatedHost) -> None:
        """Check that the subnet in subnet.env has its address in the kernel of a host that nothing has
        disturbed."""
        subnet = SubnetFile(host.subnet_file).find_subnet()
        devices = {name for name in host.kernel.links if is_ours(name)}
        quiet = self._world is not None and self._world.quiet_for(host) > QUIET
        if subnet is None or not quiet or not host.is_running or not devices:
            return
        wanted = {prefix.network_address for prefix in subnet.prefixes}
        present = {address.address for address in host.kernel.addresses if address.link in devices}
        if not wanted <= present:
            self._break("published-programmed", f"{host.name} publishes {subnet}, its kernel has {present}")

    def no_route_is_stale(self, host: SimulatedHost) -> None:
        """Check that no route leads for long to another node than the one that the store records."""
        world = self._world
        assert world is not None
        now = trio.current_time()
        holders = world.oracle.public_ips
        for destination, public_ip in _routes(host):
            key = (host.number, destination)
            right = holders.get(destination)
            if right is None or right == public_ip:
                self._misrouted.pop(key, None)
                continue
            since = self._misrouted.setdefault(key, now)
            if min(now - since, world.quiet_for(host)) > QUIET:
                self._break(
                    "no-route-astray", f"{host.name} sends {destination} to {public_ip}, its holder is {right}"
                )

    def peers_agree(self, settled: list[SimulatedHost]) -> None:
        """Check that hosts which have seen the same revision serve the same peers."""
        views: dict[int, tuple[SimulatedHost, frozenset[tuple[str, str]]]] = {}
        for host in settled:
            answer = host.answer()
            if not answer.status.in_sync:
                continue
            status = answer.status
            served = {(p.subnet, p.public_ip) for p in status.peers if p.state is PeerState.IN_SYNC}
            if status.lease is not None and status.underlay is not None:
                served.add((status.lease.subnet, status.underlay.public_ip))
            first, theirs = views.setdefault(status.revision, (host, frozenset(served)))
            if theirs != served:
                odd = ", ".join(f"{subnet} at {ip}" for subnet, ip in sorted(theirs ^ served))
                self._break("peers-agree", f"{first.name} and {host.name} at revision {status.revision}: {odd}")

    # --- at the end

    def all_are_healthy(self) -> None:
        """Check that without faults every host is healthy, or reports that no subnet is left."""
        if unhealthy := self.find_unhealthy():
            self._break("all-well", unhealthy)

    def find_unhealthy(self) -> str:
        """Describe the first host that is not healthy, and why; "" if there is none."""
        world = self._world
        assert world is not None
        for host in world.hosts:
            if not host.is_up:
                return f"{host.name} is down"
            answer, keeper = host.answer(), host.keeper
            codes = {problem.code for problem in answer.status.problems}
            if world.went_back:
                codes.discard("store-went-back")  # as long as revisions are lower than they were
            peers = answer.status.peers
            is_healthy = answer.status.belief == "held" and not codes and answer.status.peers_in_sync == len(peers)
            is_exhausted = keeper.waits_for is Waiting.SUBNET and codes <= {"out-of-subnets", "lease-lost"}
            if not (answer.verdict is Verdict.HEALTHY or is_healthy or (is_exhausted and world.is_exhausted)):
                problems = "; ".join(problem.text for problem in answer.status.problems)
                return f"{host.name} is {answer.verdict.name}: {answer.reason}: {problems}"
        return ""


def find_overlap(hosts: Iterable[SimulatedHost]) -> str:
    """Describe two hosts that both believe that they hold subnets which overlap; "" if there are none."""
    claimed: list[tuple[SimulatedHost, LeaseRecord]] = []
    for host in hosts:
        if host.belief is not Belief.HELD or (held := host.keeper.held) is None:
            continue
        for other, theirs in claimed:
            if held.subnet.overlaps(theirs.subnet):
                return f"{other.name} holds {theirs.subnet}, {host.name} holds {held.subnet}"
        claimed.append((host, held))
    return ""


def _held(keeper: KeeperState | None, now: float) -> object:
    if keeper is None or keeper.held is None or belief(keeper, now) is not Belief.HELD:
        return None
    return keeper.held.subnet


def _routes(host: SimulatedHost) -> list[tuple[IPNetwork, IPAddress]]:
    """List where our routes and our datapath's entries lead: destination and underlay address."""
    kernel = host.kernel
    found = [(encap.prefix, encap.destination) for encap in kernel.find(Encap)]
    for destination, [first, *_] in kernel.routes.items():
        if first.protocol != ROUTE_PROTOCOL or first.gateway is None or first.link == "eth1":
            continue
        if first.link == "eth0":
            found.append((destination, first.gateway))
            continue
        neighbour = kernel.neighbours.get((first.link, first.gateway))
        entry = kernel.fdb.get((first.link, neighbour.mac)) if neighbour is not None else None
        if entry is not None:
            found.append((destination, entry.destination))
    return found
