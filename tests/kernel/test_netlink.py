"""The netlink socket itself, against the real kernel."""

from __future__ import annotations

import errno
import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio

from overlayd.core.kernel.driver import Operation, Scope, Verb
from overlayd.core.kernel.items import Forwarding, Route
from overlayd.core.network.addresses import Family
from overlayd.host.netlink import wire
from overlayd.host.netlink.connection import open_netlink, open_notifications
from overlayd.host.netlink.driver import open_netlink_driver
from overlayd.host.netlink.dumps import read_links, read_route_rows
from overlayd.host.netlink.entries import pack_route
from overlayd.host.netlink.netns import in_netns
from overlayd.testing.changes import open_changes
from support.netns import ip, netns, node, require_root
from support.overlay import DEVICE, adding, install, neighbour, peer, subnet
from support.overlay import node as state_of


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_another_namespace_is_reached_and_ours_stays() -> None:
    before = (os.readlink("/proc/self/ns/net"), open_files())
    with node() as name:
        for place in (name, f"/run/netns/{name}"):
            async with open_netlink(place) as netlink:
                assert {link.name for link in await read_links(netlink)} == {"lo", "eth0", "wire"}
    assert (os.readlink("/proc/self/ns/net"), open_files()) == before


async def test_a_driver_leaves_no_file_open() -> None:
    with node() as name:
        before = open_files()
        async with open_netlink_driver(name) as driver, open_changes(driver):
            await driver.apply([Operation(Verb.ADD, Forwarding(Family.IPV4))])
        assert open_files() == before


async def test_a_namespace_that_does_not_exist_is_named() -> None:
    require_root()
    with pytest.raises(FileNotFoundError, match="no-such-namespace"):
        async with open_netlink("no-such-namespace"):
            pass


async def test_a_file_that_is_no_namespace_is_refused() -> None:
    require_root()
    with pytest.raises(OSError, match="cannot enter the network namespace"):
        async with open_netlink("/etc/passwd"):
            pass


async def test_a_refusal_brings_the_kernels_own_words() -> None:
    with node() as name:
        async with open_netlink(name) as netlink:
            (index,) = [link.index for link in await read_links(netlink) if link.name == "eth0"]
            beyond = Route(subnet(2), IPv4Address("192.0.2.1"), "eth0")
            refused = await netlink.execute_one(
                wire.Request(wire.RTM_NEWROUTE, wire.NLM_F_CREATE, pack_route(beyond, index))
            )
    assert refused == wire.Refusal(errno.ENETUNREACH, "Nexthop has invalid gateway")


async def test_a_namespace_without_any_route_has_an_empty_table() -> None:
    with netns() as name:
        async with open_netlink(name) as netlink:
            assert await read_route_rows(netlink) == []


async def test_two_hundred_peers_come_and_go() -> None:
    """More than one batch, and a dump of more than one datagram."""
    numbers = range(2, 202)
    with node() as name:
        async with open_netlink_driver(name) as driver:
            await install(driver, state_of(1, peers=numbers))
            gone = [Operation(Verb.REMOVE, item) for number in numbers for item in reversed(peer(number))]
            assert not any(await driver.apply(gone))
            assert await driver.observe(Scope()) == state_of(1)


async def test_each_of_many_refused_operations_is_told() -> None:
    with node() as name:
        async with open_netlink_driver(name) as driver:
            await install(driver, state_of(1))
            ip(name, f"link set {DEVICE} down")
            operations = adding(item for number in range(2, 202) for item in peer(number))
            outcomes = await driver.apply(operations)
            # a device that is down takes FDB entries and neighbours, and refuses every route
            for operation, outcome in zip(operations, outcomes, strict=True):
                assert (outcome is not None) == (operation.item.key[0] == "route"), operation


async def test_lost_notifications_count_as_a_change() -> None:
    with node() as name:
        async with open_notifications(name, (5,)) as notifications:
            notifications._sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 2048)
            for number in range(1, 40):
                ip(name, f"address add 10.98.0.{number}/32 dev eth0")
            with trio.fail_after(10):
                while await notifications.receive() is not None:
                    pass


async def test_the_neighbours_of_foreign_devices_are_no_news() -> None:
    """Or else every ARP exchange of a pod would wake the daemon."""
    with node() as name:
        async with open_netlink_driver(name) as driver:
            await install(driver, state_of(1, peers=(2,)))
            async with open_changes(driver) as hints:
                ip(name, "neighbour add 10.99.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud reachable")
                with trio.move_on_after(0.2) as silence:
                    await hints.wait()
                assert silence.cancelled_caught
                ip(name, f"neighbour delete {neighbour(2).address} dev {DEVICE}")
                with trio.fail_after(10):
                    await hints.wait()


async def test_another_mtu_of_the_underlay_is_news() -> None:
    with node() as name:
        async with open_netlink_driver(name) as driver, open_changes(driver) as hints:
            ip(name, "link set eth0 mtu 1400")
            with trio.fail_after(10):
                await hints.wait()


async def test_switching_forwarding_off_is_news() -> None:
    with node() as name:
        async with open_netlink_driver(name) as driver:
            await install(driver, state_of(1))
            async with open_changes(driver) as hints:
                in_netns(name, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("0"))
                with trio.fail_after(10):
                    await hints.wait()
            assert Forwarding(Family.IPV4) not in (await driver.observe(Scope())).items
