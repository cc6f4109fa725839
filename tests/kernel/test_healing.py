"""The reconciler over the real kernel: whatever the world does to it, it is made right again, promptly.

Each fault shows that it took effect: the reconciler had something to do because of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network

import pytest
import trio

from overlayd.core.decide import Decision, Target
from overlayd.core.kernel.driver import ALL, Driver, Failure, Keys, OnChange, Operation, Scope
from overlayd.core.kernel.items import KernelState, Route
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.desired import DesiredState
from overlayd.core.report import Report
from overlayd.node.reconciler import Reconciler
from support import overlay
from support.netns import bridge, ip
from support.worlds import RealDriverWorld, open_real_world

PEERS = (2, 3, 4)
SCOPE = Scope(frozenset({"eth0"}))
VXLAN = DesiredState(
    overlay.node(),
    {Subnet((overlay.subnet(n),)): KernelState.of(overlay.peer(n)) for n in PEERS},
)
HOST_GW = DesiredState(
    KernelState.of([overlay.FORWARDING]),
    {
        Subnet((overlay.subnet(n),)): KernelState.of(
            [Route(overlay.subnet(n), IPv4Address(f"10.99.0.{n}"), "eth0")]
        )
        for n in PEERS
    },
)


class CountingDriver(Driver):
    """Counts the operations that go through it, and the looks at all that there is."""

    def __init__(self, inner: Driver) -> None:
        self._inner = inner
        self.kinds = inner.kinds
        self.operations = 0
        self.looks = 0

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        self.looks += keys is ALL
        return await self._inner.observe(scope, keys)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        self.operations += len(operations)
        return await self._inner.apply(operations)

    def watch(self, on_change: OnChange) -> AbstractAsyncContextManager[None]:
        return self._inner.watch(on_change)


@asynccontextmanager
async def kept(world: RealDriverWorld, desired: DesiredState) -> AsyncGenerator[CountingDriver]:
    """A reconciler at work on the world, which has reached the desired state."""
    driver = CountingDriver(world.driver)

    async def decide() -> Decision:
        return Decision(target=Target(desired, SCOPE, sweep=True))

    async def publish(report: Report) -> None:
        pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Reconciler(driver, decide, publish, trio.current_time).run)
        await reached(world, desired)
        await quiet(driver)
        yield driver
        nursery.cancel_scope.cancel()


async def reached(world: RealDriverWorld, desired: DesiredState) -> None:
    actual = KernelState()
    with trio.move_on_after(20):
        while (actual := await world.driver.observe(SCOPE)) != desired.kernel:  # noqa: ASYNC110
            await trio.sleep(0.05)
    assert str(actual) == str(desired.kernel)


async def quiet(driver: CountingDriver) -> None:
    """Until nothing was done for a while: what it does from now on has a new reason."""
    before = -1
    while before != driver.operations:
        before = driver.operations
        await trio.sleep(0.3)


async def heals(world: RealDriverWorld, desired: DesiredState, driver: CountingDriver, before: int) -> None:
    with trio.fail_after(20):
        while driver.operations == before:  # noqa: ASYNC110
            await trio.sleep(0.01)
    await reached(world, desired)


@pytest.mark.parametrize(
    "fault",
    [
        "ip link set ovl.1 down",
        "ip link delete ovl.1",
        "ip link set ovl.1 address 02:00:00:00:00:66",
        "ip link set ovl.1 mtu 1300",
        "ip address delete 10.244.1.0/32 dev ovl.1",
        "ip address add 10.244.66.0/32 dev ovl.1",
        "ip route delete 10.244.2.0/24",
        "ip route flush dev ovl.1",
        "ip route replace 10.244.2.0/24 via 10.99.0.66 dev eth0",
        "ip route replace 10.244.2.0/24 via 10.244.3.0 dev ovl.1 onlink proto 111",
        "ip route add 10.244.77.0/24 via 10.244.3.0 dev ovl.1 onlink proto 111",
        "ip neighbour delete 10.244.2.0 dev ovl.1",
        "ip neighbour replace 10.244.2.0 lladdr 02:00:00:00:00:66 dev ovl.1 nud permanent",
        "ip neighbour replace 10.244.2.0 lladdr 02:00:00:00:00:66 dev ovl.1 nud reachable",
        "ip neighbour add 10.244.77.0 lladdr 02:00:00:00:00:66 dev ovl.1 nud permanent",
        "bridge fdb delete 02:00:00:00:00:02 dev ovl.1",
        "bridge fdb replace 02:00:00:00:00:02 dev ovl.1 dst 10.99.0.66 self permanent",
        "bridge fdb append 02:00:00:00:00:77 dev ovl.1 dst 10.99.0.66 self permanent",
        "ip link delete ovl.1; ip link add ovl.1 type vxlan id 9 local 10.99.0.1 dev eth0 dstport 4789",
    ],
)
async def test_a_fault_is_healed(fault: str) -> None:
    async with open_real_world() as world, kept(world, VXLAN) as driver:
        before = driver.operations
        for command in fault.split("; "):
            program, _, rest = command.partition(" ")
            {"ip": ip, "bridge": bridge}[program](world.netns, rest)
        await heals(world, VXLAN, driver, before)


@pytest.mark.parametrize(
    "fault",
    [
        "link set eth0 down; link set eth0 up",
        "route delete 10.244.2.0/24",
        "route replace 10.244.2.0/24 via 10.99.0.3 dev eth0 proto 111",
        "route add 10.244.77.0/24 via 10.99.0.3 dev eth0 proto 111",
    ],
)
async def test_host_gw_routes_are_healed(fault: str) -> None:
    async with open_real_world() as world, kept(world, HOST_GW) as driver:
        before = driver.operations
        for command in fault.split("; "):
            ip(world.netns, command)
        await heals(world, HOST_GW, driver, before)


async def test_stale_entries_at_the_start_are_swept_and_strangers_stay() -> None:
    async with open_real_world() as world:
        async with kept(world, VXLAN):
            pass
        for old in (7, 8):
            await world.driver.apply(overlay.adding(overlay.peer(old)))
        ip(world.netns, "link add ovl.9 type vxlan id 9 dstport 4790 local 10.99.0.1 dev eth0")
        ip(world.netns, "link add dummy0 type bridge")
        ip(world.netns, "link set dummy0 up")
        ip(world.netns, "route add 10.244.99.0/24 dev dummy0 proto 111")
        ip(world.netns, "route add 192.0.2.0/24 via 10.99.0.66 dev eth0")
        before = ip(world.netns, "route show dev dummy0") + ip(world.netns, "route show dev eth0")
        async with kept(world, VXLAN):
            assert ip(world.netns, "route show dev dummy0") + ip(world.netns, "route show dev eth0") == before
            assert "ovl.9" not in ip(world.netns, "link show")


async def test_the_kernel_refuses_one_peer_and_serves_the_others() -> None:
    desired = DesiredState(
        VXLAN.base,
        {
            **VXLAN.peers,
            Subnet((IPv4Network("10.244.9.0/24"),)): KernelState.of(
                [Route(IPv4Network("10.244.9.0/24"), IPv4Address("10.99.0.9"), "nowhere")]
            ),
        },
    )
    reports: list[Report] = []

    async def decide() -> Decision:
        return Decision(target=Target(desired, SCOPE, sweep=True))

    async def publish(report: Report) -> None:
        reports.append(report)

    async with open_real_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(Reconciler(world.driver, decide, publish, trio.current_time).run)
        await reached(world, VXLAN)
        with trio.fail_after(10):
            while not (reports and reports[-1].retries.failed_operations):  # noqa: ASYNC110
                await trio.sleep(0.05)
        [failed_operation] = reports[-1].retries.failed_operations.values()
        assert "nowhere" in failed_operation.failure.reason
        nursery.cancel_scope.cancel()


async def test_own_writes_and_foreign_changes_cause_no_look() -> None:
    """Programming peers tells of thousands of changes, all of them our own; and hosts have a life of their own."""
    async with open_real_world() as world, kept(world, VXLAN) as driver:
        before = driver.looks
        for number in range(20):
            ip(world.netns, f"link add pod{number} type veth peer name pod{number}b")
            ip(world.netns, f"link set pod{number} up")
            ip(world.netns, f"route add 192.0.2.{number}/32 dev eth0")
            ip(world.netns, f"route delete 192.0.2.{number}/32 dev eth0")
        world.delete(overlay.fdb_entry(3))  # one change that counts, and ends the wait
        await reached(world, VXLAN)
        await quiet(driver)
        assert driver.looks - before <= 3


async def test_programming_many_peers_takes_two_looks() -> None:
    numbers = range(2, 202)
    many = DesiredState(
        overlay.node(), {Subnet((overlay.subnet(n),)): KernelState.of(overlay.peer(n)) for n in numbers}
    )
    async with open_real_world() as world, kept(world, many) as driver:
        assert driver.looks <= 4, "the devices that were made are looked at again, the peers are not"
