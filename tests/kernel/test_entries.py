"""Entries as only the real kernel can hold them: odd ones in the place of ours, and foreign ones beside ours."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest

from overlayd.core.kernel.driver import Operation, Scope, Verb
from overlayd.core.kernel.items import FdbEntry, Item, KernelState
from overlayd.core.network.addresses import Mac
from support.netns import bridge, ip
from support.overlay import (
    DEVICE,
    FORWARDING,
    adding,
    fdb_entry,
    install,
    neighbour,
    node,
    peer,
    removing,
    route,
)
from support.worlds import RealDriverWorld, open_real_world

ALL_ZERO = Mac(bytes(6))


@pytest.fixture
async def world() -> AsyncIterator[RealDriverWorld]:
    async with open_real_world() as real:
        await install(real.driver, node(1))
        yield real


async def observed(world: RealDriverWorld) -> KernelState:
    return await world.driver.observe(Scope())


async def mended(world: RealDriverWorld, desired: Item) -> None:
    """Do as a plan would to reach the desired state, and see it reached."""
    was = (await observed(world)).by_key.get(desired.key)
    assert was != desired
    outcomes = await world.driver.apply([Operation(Verb.CHANGE if was else Verb.ADD, desired, was)])
    assert outcomes == (None,)
    assert (await observed(world)).by_key[desired.key] == desired


@pytest.mark.parametrize(
    "odd",
    [
        "dst 10.99.0.9 self permanent",
        "dst 10.99.0.9 self static",
        "dst 10.99.0.9 self dynamic",
        "dst 10.99.0.2 port 4789 self permanent",
        "dst 10.99.0.2 vni 77 self permanent",
        "dst 10.99.0.2 via eth0 self permanent",
        "nhid 2 self permanent",
    ],
)
async def test_whatever_fdb_entry_stands_in_the_place_of_ours_is_replaced(
    world: RealDriverWorld, odd: str
) -> None:
    ip(world.netns, "nexthop add id 1 via 10.99.0.9 fdb")
    ip(world.netns, "nexthop add id 2 group 1 fdb")
    desired = fdb_entry(2)
    bridge(world.netns, f"fdb add {desired.mac} dev {DEVICE} {odd}")
    await mended(world, desired)
    assert (
        bridge(world.netns, f"fdb show dev {DEVICE}").split()
        == f"{desired.mac} dst 10.99.0.2 self permanent".split()
    )


async def test_an_fdb_entry_that_appears_after_observing_is_replaced(world: RealDriverWorld) -> None:
    desired = fdb_entry(2)
    bridge(world.netns, f"fdb add {desired.mac} dev {DEVICE} dst 10.99.0.9 self permanent")
    assert await world.driver.apply(adding([desired])) == (None,)
    assert desired in (await observed(world)).items


async def test_an_fdb_entry_with_several_destinations_is_removed_whole(world: RealDriverWorld) -> None:
    for number in (7, 8, 9):
        bridge(world.netns, f"fdb append {ALL_ZERO} dev {DEVICE} dst 10.99.0.{number} self permanent")
    found = (await observed(world)).by_key["fdb", DEVICE, ALL_ZERO]
    assert isinstance(found, FdbEntry)
    assert await world.driver.apply(removing([found])) == (None,)
    assert bridge(world.netns, f"fdb show dev {DEVICE}") == ""


async def test_learned_fdb_entries_are_not_ours(world: RealDriverWorld) -> None:
    bridge(world.netns, f"fdb add {fdb_entry(2).mac} dev {DEVICE} dst 10.99.0.2 self dynamic")
    assert await observed(world) == node(1)


@pytest.mark.parametrize("state", ["reachable", "stale", "noarp", "permanent"])
async def test_whatever_neighbour_stands_in_the_place_of_ours_is_replaced(
    world: RealDriverWorld, state: str
) -> None:
    desired = neighbour(2)
    ip(world.netns, f"neighbour add {desired.address} lladdr 02:00:00:00:00:99 dev {DEVICE} nud {state}")
    present = desired.key in (await observed(world)).by_key
    assert present == (state == "permanent")
    await mended(world, desired)


@pytest.mark.parametrize(
    "odd",
    [
        f"10.244.2.0/24 dev {DEVICE} proto static",
        f"10.244.2.0/24 via 10.244.2.0 dev {DEVICE} onlink proto static",
        f"10.244.2.0/24 via 10.244.9.0 dev {DEVICE} onlink proto 111",
        f"10.244.2.0/24 via 10.244.2.0 dev {DEVICE} onlink mtu 1200 proto 111",
        f"10.244.2.0/24 via 10.244.2.0 dev {DEVICE} onlink src 10.244.1.0 proto 111",
        f"10.244.2.0/24 via 10.244.2.0 dev {DEVICE} onlink proto 111 metric 5",
        f"10.244.2.0/24 via 10.244.2.0 dev {DEVICE} onlink proto 111 table 9",
        f"10.244.2.0/24 proto 111 nexthop dev {DEVICE} nexthop via 10.244.9.0 dev {DEVICE} onlink",
        "10.244.2.0/24 nhid 2 proto 111",
        "10.244.2.0/24 nhid 3 proto 111",
        "blackhole 10.244.2.0/24 proto 111",
        "unreachable 10.244.2.0/24 proto 111",
    ],
)
async def test_whatever_route_stands_in_the_place_of_ours_gives_way(world: RealDriverWorld, odd: str) -> None:
    ip(world.netns, f"nexthop add id 1 via 10.244.2.0 dev {DEVICE} onlink")
    ip(world.netns, "nexthop add id 2 group 1")
    ip(world.netns, f"nexthop add id 3 via 10.244.2.0 dev {DEVICE} onlink")
    ip(world.netns, f"route add {odd}")
    await mended(world, route(2))
    assert ip(world.netns, "route get 10.244.2.5").split()[:5] == f"10.244.2.5 via 10.244.2.0 dev {DEVICE}".split()


FOREIGN_SETUP = """\
link add flannel.1 type vxlan id 1 local 10.99.0.1 dev eth0 dstport 8473 nolearning
link set flannel.1 up
neighbour add 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent
link add ovl.9 type veth peer name ovl6.9
link set ovl.9 up
link set ovl6.9 up
address add 10.9.9.1/24 dev ovl.9
neighbour add 10.9.9.2 lladdr 02:00:00:00:00:02 dev ovl.9 nud permanent
link add ovl.x type vxlan id 5 local 10.99.0.1 dev eth0 dstport 8474
link add ovl.1a type vxlan id 6 local 10.99.0.1 dev eth0 dstport 8474
address add 10.244.1.1/24 dev wire
neighbour add 10.244.2.0 lladdr 02:00:00:00:00:02 dev wire nud permanent
neighbour add 10.99.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent
route add 10.50.0.0/16 via 10.99.0.50
route add 10.51.0.0/16 dev wire proto 111
route add 10.52.0.0/16 via 10.9.9.2 dev ovl.9 proto 111
route add 10.244.2.0/24 dev wire metric 10
route add 10.244.2.0/24 dev wire tos 0x10
route add 10.244.2.0/24 dev wire
route add 10.244.2.0/24 via 10.99.0.2 dev eth0 proto 111 table 100
route add 10.244.3.0/24 via 10.99.0.50
route add blackhole 10.244.4.0/24 proto 111"""

ON_OUR_DEVICE = f"""\
route add 10.60.0.0/16 dev {DEVICE}
route add 10.61.0.0/16 via 10.61.0.0 dev {DEVICE} onlink proto static
route add local 10.62.0.0/16 dev {DEVICE} proto 111 table main"""


async def test_foreign_state_and_decoys_stay_byte_for_byte_and_are_never_observed(world: RealDriverWorld) -> None:
    await world.driver.apply(removing([*reversed(list(node(1)))]))
    for command in FOREIGN_SETUP.splitlines():
        ip(world.netns, command)
    bridge(world.netns, "fdb add 02:00:00:00:00:02 dev flannel.1 dst 10.99.0.2 self permanent")
    before = foreign_state(world.netns)
    scope = Scope(frozenset({"eth0"}))
    assert await world.driver.observe(scope) == KernelState.of([FORWARDING])

    state = node(1, peers=(2, 3, 4))
    await install(world.driver, state)
    for command in ON_OUR_DEVICE.splitlines():
        ip(world.netns, command)
    assert await world.driver.observe(scope) == state
    moved = dataclasses.replace(route(3), gateway=IPv4Address("10.244.9.0"))
    gone_by = [Operation(Verb.CHANGE, moved, was=route(3)), *removing(peer(2)), *removing([route(4)])]
    assert not any(await world.driver.apply(gone_by))
    assert [line.split()[0] for line in ip(world.netns, f"route show dev {DEVICE}").splitlines()] == [
        "10.60.0.0/16",
        "10.61.0.0/16",
        "local",
        "10.244.3.0/24",
    ]
    left = await world.driver.observe(scope)
    assert not any(await world.driver.apply(removing(reversed(list(left)))))
    assert foreign_state(world.netns) == before


def foreign_state(netns: str) -> str:
    """Everything, in the kernel's own order, but for what the kernel itself is still busy with (IPv6 DAD)."""
    return "\n".join(
        (
            ip(netns, "-details link show"),
            ip(netns, "address show").replace(" tentative", ""),
            ip(netns, "route show table all"),
            ip(netns, "neighbour show nud permanent"),
            bridge(netns, "fdb show"),
        )
    )
