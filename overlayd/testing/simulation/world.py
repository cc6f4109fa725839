"""The simulated world: one store, the hosts, and the oracle that knows what they should believe."""

from __future__ import annotations

import random
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import trio

from overlayd.core.kernel.items import KernelState
from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.lease import Lease
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import CONFIG, OWN, SUBNETS, Delete, Put, Snapshot, Transaction
from overlayd.core.leases.subnets import choose_subnet
from overlayd.core.network.addresses import Family, IPAddress, IPNetwork
from overlayd.core.network.backend import Backend, make_view
from overlayd.core.network.backend_choice import check_backend
from overlayd.core.network.config import ConfigError, NetworkConfig, parse_config
from overlayd.core.network.desired import state_desired
from overlayd.plugins import load_backends
from overlayd.testing.simulation.host import SimulatedHost, add_decoys
from overlayd.testing.simulation.scenario import Scenario
from overlayd.testing.store import SimulatedStore
from overlayd.testing.store_link import Cut
from overlayd.testing.trace import Trace

GRACE = 30.0
"""Seconds beyond a TTL within which every host has seen what was written by hand."""
EVERYONE = 0
"""Stands for all hosts, in place of a host's number."""


@dataclass(frozen=True)
class Oracle:
    """The content of the store at one instant, and the network that every host should know.

    `network` is None while the config can't be used: then hosts may differ, by what they knew before.
    """

    records: RecordBook
    network: tuple[NetworkConfig, Backend] | None

    @property
    def book(self) -> LeaseBook:
        return self.records.book

    def lease_of(self, host: SimulatedHost) -> Lease | None:
        """Find the lease that this host ends with.

        A reservation that it had to leave, since the config has no room for it any more, stays in the store beside
        another lease.
        """
        own = [lease for lease in self.book.leases if lease.attributes.node_id == host.node_id]
        return min(own, key=lambda lease: lease.is_reservation, default=None)

    @cached_property
    def public_ips(self) -> dict[IPNetwork, IPAddress | None]:
        """The public IP in the record of each subnet."""
        return {
            prefix: lease.attributes.public_ip(Family.IPV4)
            for lease in self.book.leases
            if (prefix := lease.subnet.of(Family.IPV4)) is not None
        }

    def desired_for(self, host: SimulatedHost) -> KernelState:
        """State the desired kernel state of this host, if it knows the whole store."""
        assert self.network is not None
        config, backend = self.network
        own = self.lease_of(host)
        peers = self.book.peers(config, lambda lease: lease.attributes.node_id == host.node_id)
        view = make_view(config, backend, host.underlay(), host.mac, own, peers, in_sync=True)
        return state_desired([backend], view).kernel


KERNEL_LATENCIES = (0.0, 0.005, 0.02)
"""Seconds that a host's kernel takes for each call."""


class SimulatedWorld:
    """Store, hosts and trace of one run.

    `changed_at` is when the store was written last, `disturbed_at` when a fault last began or ended on a host.
    Until `by_hand_until` the promise about leases is suspended, as one of its assumptions was broken.
    """

    def __init__(self, scenario: Scenario, home: Path, network: trio.Nursery) -> None:
        self.scenario = scenario
        self.trace = Trace()
        self.store = SimulatedStore(self._written)
        self.written: Callable[[], None] = lambda: None
        """Called after every write to the store."""
        self.changed_at = 0.0
        self.disturbed_at: defaultdict[int, float] = defaultdict(float)
        self.by_hand_until = 0.0
        self.went_back = False
        self.ended: list[tuple[SimulatedHost, str]] = []
        """Daemons that ended by themselves, and why."""
        self._disturbances: Counter[int] = Counter()
        self._oracle: Oracle | None = None
        self._nursery = network
        self._backends = load_backends()
        chance = random.Random(f"world {scenario.seed}")
        self.hosts = [
            SimulatedHost(
                number,
                self.store,
                home,
                network,
                seed=scenario.seed,
                ttl=scenario.ttl,
                rate=chance.uniform(0.995, 1.005),  # so that no two differ by more than the assumed 1 %
                trace=self.trace,
                backends=self._backends,
            )
            for number in range(1, scenario.nodes + 1)
        ]
        for host in self.hosts:
            host.kernel_latency = chance.choice(KERNEL_LATENCIES)
            add_decoys(host.kernel)
            host.note_foreign_state()

    def _written(self) -> None:
        self.changed_at = trio.current_time()
        self._oracle = None
        self.written()

    @property
    def oracle(self) -> Oracle:
        if self._oracle is None:
            records = self.store.records
            below = {
                prefix: tuple(r for n, r in sorted(records.items()) if n.startswith(prefix))
                for prefix in (SUBNETS, OWN)
            }
            snapshot = Snapshot(self.store.revision, records.get(CONFIG), below[SUBNETS], below[OWN])
            self._oracle = Oracle(absorb_snapshot(RecordBook(), snapshot, 0), self._find_network())
        return self._oracle

    def _find_network(self) -> tuple[NetworkConfig, Backend] | None:
        record = self.store.records.get(CONFIG)
        try:
            config = parse_config(record.value) if record is not None else None
            return None if config is None else (config, check_backend(config, self._backends))
        except ConfigError:
            return None

    def host(self, number: int) -> SimulatedHost:
        return self.hosts[number - 1]

    # --- daemons

    async def start(self, host: SimulatedHost) -> None:
        """Start the daemon of this host."""
        self.disturb(host.number)
        await self._nursery.start(self._run, host)

    async def _run(self, host: SimulatedHost, task_status: trio.TaskStatus[None]) -> None:
        try:
            await host.run(task_status)
        except Exception:  # noqa: BLE001  # whatever ends a daemon goes into the report
            self.ended.append((host, traceback.format_exc()))

    # --- what faults do

    @contextmanager
    def disturbance(self, number: int, what: str) -> Iterator[None]:
        """Expect nothing of this host, or of EVERYONE, within the block."""
        name = self.host(number).name if number else "store"
        self.trace.begins(name, what)
        self.disturb(number)
        self._disturbances[number] += 1
        try:
            yield
        finally:
            self._disturbances[number] -= 1
            self.disturb(number)
            self.trace.ends(name, what)

    def disturb(self, number: int) -> None:
        self.disturbed_at[number] = trio.current_time()

    def break_assumption(self) -> None:
        """Suspend the promise about leases until all beliefs of now have ended: its assumptions were broken."""
        self.by_hand_until = trio.current_time() + self.scenario.ttl + GRACE

    def quiet_for(self, host: SimulatedHost) -> float:
        """Return the seconds since the last event that this host has to follow; 0 while a fault lasts on it."""
        if (
            self._disturbances[EVERYONE]
            or self._disturbances[host.number]
            or not (host.is_running and host.store_link.is_sound)
        ):
            return 0.0
        return trio.current_time() - self.quiet_since(host)

    def quiet_since(self, host: SimulatedHost) -> float:
        return max(self.disturbed_at[EVERYONE], self.disturbed_at[host.number])

    def cut_for(self, host: SimulatedHost) -> float:
        """Return the seconds for which a running daemon has had no link to the store."""
        if not host.is_running or host.store_link.cut is Cut.NONE:
            return 0.0
        return trio.current_time() - max(self.quiet_since(host), host.store_link.cut_at)

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no subnet left."""
        oracle = self.oracle
        assert oracle.network is not None
        return choose_subnet(oracle.network[0], oracle.book.taken, None, 0.0) is None

    # --- the store, from outside

    async def put(self, name: str, value: bytes, lease_id: int = 0) -> None:
        await self.store.commit(Transaction((), (Put(name, value, lease_id),)))

    async def delete(self, name: str) -> None:
        await self.store.commit(Transaction((), (Delete(name),)))
