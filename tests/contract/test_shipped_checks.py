"""overlayd's own drivers and backends pass the checks that a third party runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
import trio.testing

from overlayd.core.firewall.iptables import Variant, forward_rules
from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.driver import Driver, Scope
from overlayd.core.kernel.items import KernelState, Key
from overlayd.core.network.backend import Backend
from overlayd.host.netlink.driver import VXLAN_DEVICES, open_netlink_driver
from overlayd.host.nft.driver import open_nft
from overlayd.testing.backend_checks import BACKEND_CHECKS, BackendCase, BackendCheck
from overlayd.testing.contracts import DRIVER_CHECKS, DriverCase, DriverCheck
from overlayd.testing.kernel import FakeKernel, ForeignLink
from overlayd_backends.hostgw import HostGwBackend
from overlayd_backends.udp.backend import UdpBackend
from overlayd_backends.udp.driver import TUN_DEVICE
from overlayd_backends.vxlan import VxlanBackend
from support.loops import open_fake_datapath
from support.netns import ip, netns, node
from support.nft import firewall, require_nft
from support.overlay import NETWORK, TUN, subnet

DEVICES = (VXLAN_DEVICES, TUN_DEVICE)
SCOPE = Scope(frozenset({"eth0"}))
BACKENDS: Mapping[str, Backend] = {
    "vxlan": VxlanBackend(),
    "direct": VxlanBackend(direct_routing=True),
    "host-gw": HostGwBackend(),
    "udp": UdpBackend(),
}
DATAPATH = Datapath(TUN, IPv4Address("10.99.0.1"), 8285, (subnet(1),))


def backend_case(backend: Backend) -> BackendCase:
    return BackendCase(backend, FakeKernel().kinds, DEVICES)


def backend_states(backend: Backend) -> list[KernelState]:
    return list(backend_case(backend).states())


@pytest.mark.parametrize("check", BACKEND_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_backend(check: BackendCheck, backend: Backend) -> None:
    check(backend_case(backend))


def datapath_states() -> list[KernelState]:
    def encap(number: int, address: int) -> Encap:
        return Encap(TUN, subnet(number), IPv4Address(f"10.99.0.{address}"), 8285)

    moved = replace(DATAPATH, port=9000)
    return [
        KernelState.of([DATAPATH, encap(2, 2), encap(3, 3)]),
        KernelState.of([replace(DATAPATH, own=(subnet(3),)), encap(2, 9), encap(1, 1)]),
        KernelState.of([moved]),
    ]


def firewall_states() -> list[KernelState]:
    return [firewall(1, peers=(2, 3)), firewall(2, peers=(3,)), firewall(1)]


def own(kernel: FakeKernel) -> Callable[[], AbstractAsyncContextManager[Driver]]:
    """One and the same kernel at each opening."""

    @asynccontextmanager
    async def open_kernel() -> AsyncIterator[Driver]:
        yield kernel

    return open_kernel


def flap(kernel: FakeKernel) -> Callable[[Driver], Awaitable[frozenset[Key]]]:
    """Delete one item after the other by hand."""

    async def disturb(driver: Driver) -> frozenset[Key]:
        found = [item for item in await driver.observe(SCOPE) if item.rank >= 70 or item.container is None]
        kernel.delete(found[-1])
        return frozenset({found[-1].key})

    return disturb


FAKE_STATES = {
    **{name: backend_states(each) for name, each in BACKENDS.items()},
    "nft": firewall_states(),
    "iptables": [KernelState.of([forward_rules(each, NETWORK)]) for each in Variant],
}


@pytest.mark.parametrize("check", DRIVER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("latency", [0.0, 0.02])
@pytest.mark.parametrize("states", FAKE_STATES.values(), ids=FAKE_STATES)
async def test_fake_kernel(
    check: DriverCheck, states: list[KernelState], latency: float, autojump_clock: trio.testing.MockClock
) -> None:
    kernel = FakeKernel(latency=latency)
    kernel.add_link(ForeignLink("eth0"))
    await check(DriverCase(own(kernel), states, SCOPE, flap(kernel)))


@pytest.mark.parametrize("check", DRIVER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["vxlan", "direct", "host-gw"])
async def test_netlink(check: DriverCheck, name: str) -> None:
    async def delete_route(driver: Driver) -> frozenset[Key]:
        [*_, last] = await driver.observe(SCOPE)
        ip(where, f"route delete {last.key[1]}")
        return frozenset({last.key})

    with node() as where:
        states = sorted(backend_states(BACKENDS[name]), key=len, reverse=True)
        await check(DriverCase(lambda: open_netlink_driver(where), states, SCOPE, delete_route))


@pytest.mark.parametrize("check", DRIVER_CHECKS, ids=lambda check: check.__name__)
async def test_nft(check: DriverCheck) -> None:
    require_nft()
    with netns() as name:

        @asynccontextmanager
        async def open_it() -> AsyncIterator[Driver]:
            with open_nft(name) as driver:
                yield driver

        await check(DriverCase(open_it, firewall_states()))


@pytest.mark.parametrize("check", DRIVER_CHECKS, ids=lambda check: check.__name__)
async def test_udp_datapath(check: DriverCheck) -> None:
    @asynccontextmanager
    async def open_it() -> AsyncIterator[Driver]:
        async with open_fake_datapath() as (driver, _):
            yield driver

    await check(DriverCase(open_it, datapath_states()))
