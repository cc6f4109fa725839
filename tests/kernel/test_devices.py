"""The tunnel device and the host's settings, on the real kernel."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from overlayd.core.kernel.driver import Operation, Scope, Verb
from overlayd.core.kernel.items import Forwarding, KernelState, Link, VxlanKind
from overlayd.core.network.addresses import Family
from overlayd.host.netlink.netns import in_netns
from support.netns import ip, netns, node, run
from support.overlay import DEVICE, FORWARDING, adding, install, link, mac, removing
from support.worlds import RealDriverWorld, open_real_world


@pytest.fixture
async def world() -> AsyncIterator[RealDriverWorld]:
    async with open_real_world() as real:
        yield real


async def observed_link(world: RealDriverWorld, name: str = DEVICE) -> Link:
    found = (await world.driver.observe(Scope())).by_key["link", name]
    assert isinstance(found, Link)
    return found


async def test_the_device_is_as_flannel_would_make_it(world: RealDriverWorld) -> None:
    await install(world.driver, KernelState.of([link(1)]))
    (shown,) = json.loads(ip(world.netns, f"-d -j link show {DEVICE}"))
    assert shown["address"] == "02:00:00:00:00:01"
    assert shown["mtu"] == 1450
    assert "UP" in shown["flags"]
    assert shown["inet6_addr_gen_mode"] == "none"
    data = shown["linkinfo"]["info_data"]
    assert data["ttl"] == 0  # auto
    expected = {"id": 1, "local": "10.99.0.1", "link": "eth0", "port": 8472, "learning": False, "ageing": 300}
    assert {key: data[key] for key in expected} == expected
    assert data["udp_csum"] is True
    assert ip(world.netns, f"address show {DEVICE}").count("inet") == 0
    setting = f"/proc/sys/net/ipv6/conf/{DEVICE}/accept_ra"
    assert run("ip netns exec", world.netns, "cat", setting).strip() == "0"


@pytest.mark.parametrize(
    "desired",
    [
        Link("ovl.16777215", VxlanKind(16777215, IPv4Address("10.99.0.1"), "eth0", port=4789), mac(3), 1400),
        Link("ovl.2", VxlanKind(2, IPv4Address("10.99.0.1"), "eth0", learning=True), mac(3), 1450),
        Link("ovl.3", VxlanKind(3, IPv4Address("10.99.0.1"), "eth0", gbp=True, port=9000), mac(3), 1450),
        Link("ovl.4", VxlanKind(4, IPv4Address("10.99.0.1"), "eth0"), mac(3), 1450, up=False),
        Link("ovl6.5", VxlanKind(5, IPv6Address("fd00::1"), "eth0"), mac(3), 1430),
    ],
    ids=str,
)
async def test_every_attribute_comes_back(world: RealDriverWorld, desired: Link) -> None:
    await install(world.driver, KernelState.of([desired]))


@pytest.mark.parametrize(
    "options",
    [
        "id 1 local 10.99.0.1 dev eth0 dstport 8472",  # learning
        "id 1 local 10.99.0.1 dev eth0 dstport 4789 nolearning",
        "id 2 local 10.99.0.1 dev eth0 dstport 8472 nolearning",
        "id 1 local 10.99.0.9 dev eth0 dstport 8472 nolearning",
        "id 1 local 10.99.0.1 dstport 8472 nolearning",
        "id 1 local 10.99.0.1 dev wire dstport 8472 nolearning",
        "id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning gbp",
        "id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning ttl 1",
        "id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning noudpcsum",
        "id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning group 239.1.1.1",
        "id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning proxy",
        "local 10.99.0.1 dev eth0 dstport 8472 nolearning external",
    ],
)
async def test_a_device_made_by_hand_with_other_attributes_is_told(world: RealDriverWorld, options: str) -> None:
    ip(world.netns, f"link add {DEVICE} address {link(1).mac} mtu 1450 up type vxlan {options}")
    found = await observed_link(world)
    assert found.kind != link(1).kind
    (refused,) = await world.driver.apply(adding([link(1)]))
    assert refused is not None
    outcomes = await world.driver.apply([*removing([found]), *adding([link(1)])])
    assert not any(outcomes)
    assert await observed_link(world) == link(1)


async def test_a_device_without_a_mac_is_told_too(world: RealDriverWorld) -> None:
    ip(world.netns, f"link add {DEVICE} type vxlan dstport 8472 gpe external")
    found = await observed_link(world)
    assert found.kind.extra == ("external", "gpe")
    assert found.mac is None
    assert not any(await world.driver.apply([*removing([found]), *adding([link(1)])]))
    assert await observed_link(world) == link(1)


async def test_a_device_made_by_hand_just_so_is_taken_on(world: RealDriverWorld) -> None:
    options = "id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning"
    ip(world.netns, f"link add {DEVICE} type vxlan {options}")
    assert await world.driver.apply(adding([link(1)])) == (None,)
    assert await observed_link(world) == link(1)
    assert ip(world.netns, f"address show {DEVICE}").count("inet") == 0  # no fe80:: either


async def test_an_underlay_that_is_not_in_this_namespace_equals_no_wish(world: RealDriverWorld) -> None:
    with netns("elsewhere") as elsewhere:
        ip(elsewhere, "link add eth0 index 4242 type veth peer name wire")
        ip(elsewhere, "link add ovl.1 type vxlan id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning")
        ip(elsewhere, f"link set ovl.1 netns {world.netns}")
        found = (await observed_link(world)).kind
        assert isinstance(found, VxlanKind)
        assert found.underlay == "index 4242"  # no interface can be called so


async def test_a_second_tunnel_with_the_same_vni_and_port_is_refused_in_the_kernels_words(
    world: RealDriverWorld,
) -> None:
    ip(world.netns, "link add flannel.1 type vxlan id 1 local 10.99.0.1 dev eth0 dstport 8472 nolearning")
    (refused,) = await world.driver.apply(adding([link(1)]))
    assert refused is not None
    assert "VNI already exists" in refused.reason


async def test_a_taken_port_is_named(world: RealDriverWorld) -> None:
    with in_netns(world.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as holder:
        holder.bind(("0.0.0.0", 8472))
        (refused,) = await world.driver.apply(adding([link(1)]))
        assert refused is not None
        assert f"(pid {os.getpid()}) has UDP port 8472" in refused.reason
    assert await world.driver.apply([Operation(Verb.CHANGE, link(1), await observed_link(world))]) == (None,)
    assert await observed_link(world) == link(1)


async def test_an_mtu_that_the_underlay_cannot_carry_is_refused(world: RealDriverWorld) -> None:
    await install(world.driver, KernelState.of([link(1)]))
    desired = dataclasses.replace(link(1), mtu=1460)
    (refused,) = await world.driver.apply([Operation(Verb.CHANGE, desired, link(1))])
    assert refused is not None
    assert await observed_link(world) == link(1)


async def test_forwarding_goes_by_the_switch_of_that_namespace(world: RealDriverWorld) -> None:
    ours = run("cat /proc/sys/net/ipv4/ip_forward")
    assert FORWARDING not in (await world.driver.observe(Scope())).items
    assert await world.driver.apply(adding([FORWARDING])) == (None,)
    assert run("ip netns exec", world.netns, "cat /proc/sys/net/ipv4/ip_forward") == "1\n"
    assert run("cat /proc/sys/net/ipv4/ip_forward") == ours
    assert FORWARDING in (await world.driver.observe(Scope())).items


async def test_forwarding_of_ipv6_is_refused_in_words(world: RealDriverWorld) -> None:
    (refused,) = await world.driver.apply(adding([Forwarding(Family.IPV6)]))
    assert refused is not None
    assert "IPv6" in refused.reason


@pytest.fixture
def namespace() -> Iterator[str]:
    with node() as name:
        yield name


def test_forwarding_is_set_on_every_interface_where_proc_sys_is_read_only(namespace: str) -> None:
    assert forward_with_read_only_proc_sys(namespace) == "False\n(None,)\nTrue\n"
    assert run("ip netns exec", namespace, "cat /proc/sys/net/ipv4/ip_forward") == "0\n"
    for interface, state in (("eth0", 1), ("wire", 1), ("lo", 0)):
        setting = f"/proc/sys/net/ipv4/conf/{interface}/forwarding"
        assert run("ip netns exec", namespace, "cat", setting) == f"{state}\n"


def test_forwarding_that_cannot_be_set_says_why(namespace: str) -> None:
    said = forward_with_read_only_proc_sys(namespace, "setpriv", "--bounding-set=-net_admin")
    assert "net.ipv4.ip_forward cannot be written here" in said
    assert "CAP_NET_ADMIN" in said


def forward_with_read_only_proc_sys(namespace: str, *wrapper: str) -> str:
    """What FORWARD prints where /proc/sys is mounted read-only, as in most containers."""
    read_only = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        read_only,
        "sh",
        *wrapper,
        sys.executable,
        "-c",
        FORWARD,
        namespace,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


FORWARD = """
import sys, trio
from overlayd.core.kernel.driver import Operation, Scope, Verb
from overlayd.core.kernel.items import Forwarding
from overlayd.core.network.addresses import Family
from overlayd.host.netlink.netns import in_netns
from overlayd.host.netlink.driver import open_netlink_driver

async def main(netns):
    item = Forwarding(Family.IPV4)
    async with open_netlink_driver(netns) as driver:
        print(item in (await driver.observe(Scope())).items)
        print(await driver.apply([Operation(Verb.ADD, item)]))
        print(item in (await driver.observe(Scope())).items)

trio.run(main, sys.argv[1])
"""
