"""Real loops on a real TUN device, in C and in Python: what they die of, and what they leave, which is nothing."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
import trio

from overlayd.core.kernel.datapath import Datapath, DatapathReport, Encap
from overlayd.core.kernel.driver import Driver, Scope
from overlayd.core.kernel.items import KernelState
from overlayd.host.netlink.netns import in_netns
from overlayd.testing.changes import open_changes
from overlayd_backends.udp.driver import open_driver
from overlayd_backends.udp.implementation import Attached, Implementation, choose_implementation
from overlayd_backends.udp.session import Attach
from support.netns import ip
from support.overlay import TUN, adding, install, removing, subnet, tun
from support.worlds import RealDriverWorld, open_real_world

DATAPATH = Datapath(TUN, IPv4Address("10.99.0.1"), 8285, (subnet(1),))
ENCAP = Encap(TUN, subnet(2), IPv4Address("10.99.0.2"), 8285)
PATIENCE = 10.0


@dataclass
class UdpNode:
    world: RealDriverWorld
    driver: Driver

    async def start(self) -> None:
        assert await self.driver.apply(adding([DATAPATH])) == (None,)
        assert await self.driver.apply(adding([ENCAP])) == (None,)

    async def stop(self) -> None:
        assert await self.driver.apply(removing([DATAPATH])) == (None,)

    async def runs(self) -> bool:
        return bool((await self.driver.observe(Scope())).items)

    def report(self) -> DatapathReport:
        report = self.driver.report()
        assert report is not None
        return report


def attaching(chosen: Implementation, netns: str) -> Attach:
    """`chosen.attach` in another network namespace."""

    @contextmanager
    def attach(datapath: Datapath, stop_fd: int) -> Iterator[Attached]:
        there = chosen.attach(datapath, stop_fd)
        attached = in_netns(netns, there.__enter__)
        try:
            yield attached
        finally:
            there.__exit__(None, None, None)

    return attach


@pytest.fixture(params=["c", "python"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[UdpNode]:
    chosen = choose_implementation(request.param)
    async with open_real_world() as world:
        await install(world.driver, KernelState.of([tun()]))
        async with open_driver(chosen, attaching(chosen, world.netns)) as driver:
            yield UdpNode(world, driver)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_it_starts_and_stops_and_leaves_no_file_behind(node: UdpNode) -> None:
    await node.start()
    assert set(node.report().offloads) >= {"checksum", "tso", "udp_segment", "udp_gro"}
    await node.stop()
    before = files()
    for _ in range(5):
        await node.start()
        assert await node.runs()
        await node.stop()
    assert files() == before


async def test_a_deleted_device_is_its_death_and_a_new_one_its_life(node: UdpNode) -> None:
    await node.start()
    async with open_changes(node.driver) as hints:
        ip(node.world.netns, f"link delete {TUN}")
        with trio.fail_after(PATIENCE):
            await hints.wait()
    assert not await node.runs()
    assert node.report().trouble
    (refused,) = await node.driver.apply(adding([DATAPATH]))
    assert refused is not None
    assert "cannot attach to TUN device ovl.udp" in refused.reason
    await install(node.world.driver, KernelState.of([tun()]))
    await node.start()
    assert await node.runs()


async def test_a_device_that_is_down_is_no_death(node: UdpNode) -> None:
    await node.start()
    ip(node.world.netns, f"link set {TUN} down")
    await trio.sleep(0.1)
    ip(node.world.netns, f"link set {TUN} up")
    await trio.sleep(0.1)
    assert await node.runs()
    assert node.report().trouble == ""


async def test_what_another_has_already_is_named(node: UdpNode) -> None:
    await node.start()
    chosen = choose_implementation("python")
    elsewhere = Datapath(TUN, IPv4Address("10.99.0.1"), 9000)
    async with open_driver(chosen, attaching(chosen, node.world.netns)) as other:
        [port, device] = [(await other.apply(adding([desired])))[0] for desired in (DATAPATH, elsewhere)]
    assert port is not None
    assert (port.errno, "UDP port 8285" in port.reason) == (errno.EADDRINUSE, True)
    assert device is not None
    assert (device.errno, "another process is attached" in device.reason) == (errno.EBUSY, True)


async def test_packets_of_strangers_are_counted(node: UdpNode) -> None:
    await node.start()
    with in_netns(node.world.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        stranger.sendto(b"hello", ("10.99.0.1", 8285))
    with trio.fail_after(PATIENCE):
        while node.report().drops["unknown_sender"] == 0:  # noqa: ASYNC110
            await trio.sleep(0.01)
