"""A driver of another package that makes devices of a kind of its own, beside overlayd's drivers.

The device is its item; addresses, neighbours and routes on it are overlayd's own, as on any device of ours.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

import pytest

from overlayd.core.kernel.datapath import DatapathUnavailableError
from overlayd.core.kernel.driver import (
    ALL,
    DevicePattern,
    Driver,
    Failure,
    Keys,
    OnChange,
    Operation,
    Scope,
    Verb,
    Watchers,
)
from overlayd.core.kernel.items import Address, Item, KernelState, Key, Rank, Route
from overlayd.host.drivers import open_drivers
from overlayd.host.netlink.connection import open_netlink
from overlayd.host.netlink.dumps import read_host_facts
from overlayd.testing.contracts import DRIVER_CHECKS, DriverCase, DriverCheck
from support.netns import ip, node
from support.overlay import FORWARDING, subnet, tun

NAME = "ovl.plain"


@dataclass(frozen=True, slots=True)
class PlainLink(Item):
    """A bridge, which overlayd itself never makes; it is up."""

    noun: ClassVar[str] = "link"
    rank: ClassVar[int] = Rank.LINK

    name: str
    mtu: int

    @property
    def key(self) -> Key:
        return ("link", self.name)

    def __str__(self) -> str:
        return f"link {self.name} bridge mtu {self.mtu}"


class PlainDriver(Driver):
    kinds = frozenset({PlainLink})
    devices = (DevicePattern(r"ovl\.plain\d*", "bridge"),)

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._watchers = Watchers()

    async def observe(self, scope: Scope, keys: Keys = ALL) -> KernelState:
        rows = json.loads(ip(self._netns, "-j -d link show type bridge") or "[]")
        ours = [row for row in rows if row and self.devices[0].fits(row["ifname"], "bridge")]
        return KernelState.of(PlainLink(row["ifname"], row["mtu"]) for row in ours)

    async def apply(self, operations: Sequence[Operation]) -> tuple[Failure | None, ...]:
        there = (await self.observe(Scope())).by_key
        for operation in operations:
            link = operation.item
            assert isinstance(link, PlainLink)
            if operation.verb is Verb.REMOVE:
                if link.key in there:
                    ip(self._netns, f"link delete {link.name}")
                continue
            if link.key not in there:
                ip(self._netns, f"link add {link.name} type bridge")
                # all addresses on it are ours: none may be of the kernel's making
                ip(self._netns, f"link set {link.name} addrgenmode none")
            ip(self._netns, f"link set {link.name} mtu {link.mtu} up")
        return (None,) * len(operations)

    @asynccontextmanager
    async def watch(self, on_change: OnChange) -> AsyncGenerator[None, None]:
        with self._watchers.added(on_change):
            yield


def states() -> list[KernelState]:
    link, own = PlainLink(NAME, 1400), Address(NAME, IPv4Address("10.244.1.0"), 32)
    other = PlainLink(f"{NAME}2", 1500)
    to_peer = Route(subnet(2), IPv4Address("10.244.2.0"), NAME, onlink=True)
    return [
        KernelState.of([FORWARDING, link, own, to_peer]),
        KernelState.of([FORWARDING, PlainLink(NAME, 1300), other, own, Route(subnet(3), None, NAME)]),
    ]


@pytest.mark.parametrize("check", DRIVER_CHECKS, ids=lambda check: check.__name__)
async def test_it_passes_the_checks_together_with_the_others(check: DriverCheck, tmp_path: Path) -> None:
    with node() as netns:

        @asynccontextmanager
        async def open_plain(implementation: str | None) -> AsyncIterator[Driver]:
            yield PlainDriver(netns)

        @asynccontextmanager
        async def open_all() -> AsyncIterator[Driver]:
            async with open_drivers({"plain": open_plain}, run_dir=tmp_path, netns=netns) as host:
                yield host.driver

        async def delete_route(driver: Driver) -> frozenset[Key]:
            ip(netns, f"route delete {subnet(2)}")
            return frozenset({("route", subnet(2))})

        await check(DriverCase(open_all, states(), disturb=delete_route))


async def test_its_devices_are_ours_and_others_of_the_kind_are_not() -> None:
    with node() as netns:
        for name in (NAME, "ovl.other", "bridge7"):
            ip(netns, f"link add {name} type bridge")
        async with open_netlink(netns, PlainDriver.devices) as netlink:
            ours = {link.name for link in (await read_host_facts(netlink)).links if link.ours}
        assert ours == {NAME}


async def test_a_device_that_no_driver_declares_is_refused_before_it_is_made() -> None:
    with node() as netns:
        async with open_drivers({}, netns=netns) as host:
            [refused] = await host.driver.apply([Operation(Verb.ADD, tun())])
            assert refused is not None
            assert "no driver declares tun devices of the name ovl.udp" in refused.reason
            [unknown] = await host.driver.apply([Operation(Verb.ADD, PlainLink(NAME, 1400))])
            assert unknown is not None
            assert "no driver is installed for link items" in unknown.reason
        assert "ovl" not in ip(netns, "-o link")


async def test_two_drivers_of_one_kind_are_named() -> None:
    @asynccontextmanager
    async def open_plain(implementation: str | None) -> AsyncIterator[Driver]:
        yield PlainDriver("")

    claim = r"PlainDriver and PlainDriver both claim .*PlainLink"
    with node() as netns, pytest.raises(DatapathUnavailableError, match=claim):
        async with open_drivers({"one": open_plain, "two": open_plain}, netns=netns):
            pass
