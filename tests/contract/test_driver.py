"""What every Driver promises: the real kernel's, in a namespace of its own, and the fake one's."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest
import trio

from overlayd.core.kernel.driver import Operation, Scope, Verb
from overlayd.core.kernel.items import ROUTE_PROTOCOL, Address, KernelState, Link, Route
from overlayd.testing.changes import open_changes
from overlayd.testing.kernel import ForeignRoute
from support.overlay import (
    DEVICE,
    FORWARDING,
    NETWORK,
    TUN,
    adding,
    address,
    fdb_entry,
    install,
    link,
    mac,
    neighbour,
    node,
    peer,
    removing,
    route,
    subnet,
    tun,
    tun_node,
    vxlan,
)
from support.worlds import LATENCIES, DriverWorld, FakeDriverWorld, open_real_world

SCOPE = Scope()
STATIC = 4


@pytest.fixture(params=[*LATENCIES, "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[DriverWorld]:
    if request.param in LATENCIES:
        yield FakeDriverWorld(LATENCIES[request.param])
        return
    async with open_real_world() as real:
        yield real


async def observed(world: DriverWorld) -> KernelState:
    return await world.driver.observe(SCOPE)


async def done(world: DriverWorld, *operations: Operation) -> None:
    outcomes = await world.driver.apply(operations)
    assert outcomes == (None,) * len(operations)


async def test_a_fresh_kernel_has_nothing_of_ours(world: DriverWorld) -> None:
    assert await observed(world) == KernelState()


async def test_what_is_added_is_observed_just_so(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2, 3)))


async def test_adding_again_succeeds_and_changes_nothing(world: DriverWorld) -> None:
    state = node(1, peers=(2,))
    await install(world.driver, state)
    await done(world, *adding(state))
    assert await observed(world) == state
    assert len(world.routes(subnet(2))) == 1


async def test_a_peer_is_removed_alone_and_removing_again_succeeds(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2, 3)))
    for _ in range(2):
        await done(world, *removing(reversed(peer(2))))
        assert await observed(world) == node(1, peers=(3,))


async def test_an_address_is_removed_and_removing_again_succeeds(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    for _ in range(2):
        await done(world, *removing([address(1)]))
        assert await observed(world) == KernelState.of([FORWARDING, link(1)])


async def test_everything_is_removed_in_reverse_and_forwarding_stays(world: DriverWorld) -> None:
    state = node(1, peers=(2,))
    await install(world.driver, state)
    await done(world, *removing(reversed(list(state))))
    assert await observed(world) == KernelState.of([FORWARDING])


async def test_entries_on_a_device_that_is_gone_are_gone(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    world.delete_link(DEVICE)
    await done(world, *removing([address(1), *peer(2), link(1)]))


async def test_entries_change_in_place(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    fdb = dataclasses.replace(fdb_entry(2), destination=IPv4Address("10.99.0.9"))
    neigh = dataclasses.replace(neighbour(2), mac=mac(9))
    path = dataclasses.replace(route(2), gateway=IPv4Address("10.244.9.0"))
    await done(
        world,
        Operation(Verb.CHANGE, fdb, was=fdb_entry(2)),
        Operation(Verb.CHANGE, neigh, was=neighbour(2)),
        Operation(Verb.CHANGE, path, was=route(2)),
    )
    assert await observed(world) == node(1) | KernelState.of([fdb, neigh, path])
    assert len(world.routes(subnet(2))) == 1


async def test_a_route_changes_its_device(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    direct = Route(subnet(2), IPv4Address("10.99.0.2"), "eth0")
    await done(world, Operation(Verb.CHANGE, direct, was=route(2)))
    assert direct in (await world.driver.observe(Scope(frozenset({"eth0"})))).items
    assert len(world.routes(subnet(2))) == 1


async def test_a_route_changes_its_flag_alone(world: DriverWorld) -> None:
    direct = Route(subnet(2), IPv4Address("10.99.0.2"), "eth0")
    onlink = dataclasses.replace(direct, onlink=True)
    await done(world, Operation(Verb.ADD, direct))
    await done(world, Operation(Verb.CHANGE, onlink, was=direct))
    assert await world.driver.observe(Scope(frozenset({"eth0"}))) == KernelState.of([onlink])
    assert len(world.routes(subnet(2))) == 1


async def test_a_link_changes_in_place(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    for change in ({"mtu": 1400}, {"mac": mac(7)}, {"up": False}, {"up": True, "mtu": 1300, "mac": mac(8)}):
        was = (await observed(world)).by_key["link", DEVICE]
        assert isinstance(was, Link)
        desired = dataclasses.replace(was, **change)
        await done(world, Operation(Verb.CHANGE, desired, was=was))
        assert (await observed(world)).by_key["link", DEVICE] == desired


async def test_another_tunnel_under_the_name_has_to_be_removed_first(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    other = dataclasses.replace(link(1), kind=vxlan(1, port=4789))
    (refused,) = await world.driver.apply(adding([other]))
    assert refused is not None
    assert refused.errno == errno.EEXIST
    await done(world, *removing([link(1)]), *adding([other]))
    assert (await observed(world)).by_key["link", DEVICE] == other


async def test_a_link_needs_its_underlay(world: DriverWorld) -> None:
    (refused,) = await world.driver.apply(adding([link(1, underlay="eth7")]))
    assert refused is not None
    assert "eth7" in refused.reason


async def test_a_foreign_device_of_our_name_is_refused_and_left_alone(world: DriverWorld) -> None:
    world.add_foreign_link(DEVICE)
    (refused,) = await world.driver.apply(adding([link(1)]))
    assert refused is not None
    assert refused.errno == errno.EEXIST
    assert "not overlayd's" in refused.reason
    await done(world, *removing([link(1)]))  # ours is not there
    world.set_link(DEVICE, up=False)  # so it still exists
    assert await observed(world) == KernelState()


async def test_one_refused_operation_keeps_no_other_from_being_tried(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    nowhere = Address("ovl.7", IPv4Address("10.244.7.0"), 32)
    outcomes = await world.driver.apply(adding([fdb_entry(2), nowhere, neighbour(2), route(2)]))
    assert [failure is None for failure in outcomes] == [True, False, True, True]
    assert outcomes[1] is not None
    assert outcomes[1].errno == errno.ENODEV
    assert "ovl.7" in outcomes[1].reason
    assert await observed(world) == node(1, peers=(2,))


async def test_a_route_over_a_device_that_is_down_is_refused(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    world.set_link(DEVICE, up=False)
    (refused,) = await world.driver.apply(adding([route(2)]))
    assert refused is not None
    assert refused.errno == errno.ENETDOWN
    assert "not up" in refused.reason  # the kernel's own words


async def test_a_foreign_route_stays_and_ours_goes_before_it(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    foreign = ForeignRoute(subnet(2), "wire", protocol=STATIC)
    world.put_route(foreign)
    await done(world, *adding([route(2)]))
    assert await observed(world) == node(1) | KernelState.of([route(2)])
    moved = dataclasses.replace(route(2), gateway=IPv4Address("10.244.9.0"))
    await done(world, Operation(Verb.CHANGE, moved, was=route(2)))
    assert [r.gateway for r in world.routes(subnet(2))] == [moved.gateway, None]
    await done(world, *removing([moved]))
    assert world.routes(subnet(2)) == [foreign]


async def test_ours_behind_a_foreign_route_counts_as_absent_and_adding_heals_it(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    foreign = ForeignRoute(subnet(2), "wire", protocol=STATIC)
    world.put_route(foreign, in_front=True)
    assert route(2) not in (await observed(world)).items
    await done(world, *adding([route(2)]))
    assert route(2) in (await observed(world)).items
    ours = ForeignRoute(subnet(2), DEVICE, route(2).gateway, ROUTE_PROTOCOL, onlink=True)
    assert world.routes(subnet(2)) == [ours, foreign]


async def test_removing_never_takes_a_foreign_route(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    foreign = ForeignRoute(subnet(2), DEVICE, route(2).gateway, STATIC, onlink=True)
    world.put_route(foreign)
    await done(world, *removing([route(2)]))
    assert world.routes(subnet(2)) == [foreign]
    assert await observed(world) == node(1)


async def test_our_protocol_number_on_a_foreign_device_is_not_ours(world: DriverWorld) -> None:
    world.put_route(ForeignRoute(subnet(5), "wire", protocol=ROUTE_PROTOCOL))
    world.put_route(ForeignRoute(subnet(6), "eth0", protocol=ROUTE_PROTOCOL))
    gateway = IPv4Address("10.99.0.7")
    world.put_route(ForeignRoute(subnet(7), "eth0", gateway, ROUTE_PROTOCOL))
    assert await observed(world) == KernelState()
    # on the underlay the ones with a gateway are ours, as host-gw makes them
    scope = Scope(frozenset({"eth0"}))
    assert await world.driver.observe(scope) == KernelState.of([Route(subnet(7), gateway, "eth0")])


async def test_a_route_of_ours_without_a_gateway_is_seen_and_removed(world: DriverWorld) -> None:
    await install(world.driver, node(1))
    world.put_route(ForeignRoute(subnet(2), DEVICE, protocol=ROUTE_PROTOCOL))
    odd = (await observed(world)).by_key["route", subnet(2)]
    assert odd == Route(subnet(2), None, DEVICE)
    await done(world, *removing([odd]))
    assert world.routes(subnet(2)) == []


async def test_a_link_that_goes_down_takes_routes_and_neighbours_along(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    world.set_link(DEVICE, up=False)
    down = dataclasses.replace(link(1), up=False)
    assert await observed(world) == KernelState.of([FORWARDING, down, address(1), fdb_entry(2)])
    world.set_link(DEVICE, up=True)
    assert await observed(world) == KernelState.of([FORWARDING, link(1), address(1), fdb_entry(2)])


async def test_a_new_mac_flushes_the_neighbours(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    world.set_link(DEVICE, mac=mac(9))
    changed = dataclasses.replace(link(1), mac=mac(9))
    assert await observed(world) == KernelState.of([FORWARDING, changed, address(1), fdb_entry(2), route(2)])


async def test_setting_the_mac_that_it_has_flushes_nothing(world: DriverWorld) -> None:
    state = node(1, peers=(2,))
    await install(world.driver, state)
    await done(world, Operation(Verb.CHANGE, link(1), was=dataclasses.replace(link(1), mtu=1300)))
    assert await observed(world) == state


async def test_the_last_address_takes_routes_and_neighbours_along(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    await done(world, *removing([address(1)]))
    assert await observed(world) == KernelState.of([FORWARDING, link(1), fdb_entry(2)])


async def test_a_tun_device_and_its_route_without_a_gateway_are_observed_just_so(world: DriverWorld) -> None:
    await install(world.driver, tun_node())
    await done(world, *adding(tun_node()))
    assert await observed(world) == tun_node()
    assert world.routes(NETWORK) == [ForeignRoute(NETWORK, TUN, None, ROUTE_PROTOCOL)]


async def test_a_tun_device_changes_in_place(world: DriverWorld) -> None:
    await install(world.driver, tun_node())
    narrow = tun(mtu=1400)
    await done(world, Operation(Verb.CHANGE, narrow, was=tun()))
    assert (await observed(world)).by_key["link", TUN] == narrow
    assert Route(NETWORK, None, TUN) in (await observed(world)).items


async def test_a_tun_device_outlives_its_underlay(world: DriverWorld) -> None:
    await install(world.driver, tun_node())
    world.delete_link("eth0")
    assert await observed(world) == tun_node()


async def test_a_tun_device_goes_and_takes_everything_along(world: DriverWorld) -> None:
    await install(world.driver, tun_node())
    await done(world, *removing([tun()]))
    assert await observed(world) == KernelState.of([FORWARDING])
    await done(world, *removing(reversed(list(tun_node()))))


async def test_a_tun_device_that_is_down_has_no_routes(world: DriverWorld) -> None:
    await install(world.driver, tun_node())
    world.set_link(TUN, up=False)
    assert Route(NETWORK, None, TUN) not in (await observed(world)).items
    down = (await observed(world)).by_key["link", TUN]
    await done(world, Operation(Verb.CHANGE, tun(), was=down), *adding([Route(NETWORK, None, TUN)]))
    assert await observed(world) == tun_node()


async def test_a_foreign_device_of_the_tun_devices_name_is_refused_and_left_alone(world: DriverWorld) -> None:
    world.add_foreign_link(TUN)
    (refused,) = await world.driver.apply(adding([tun()]))
    assert refused is not None
    assert refused.errno == errno.EEXIST
    assert "not overlayd's" in refused.reason
    await done(world, *removing([tun()]))
    world.set_link(TUN, up=False)  # so it still exists
    assert await observed(world) == KernelState()


async def test_a_route_loses_its_gateway_and_gets_one(world: DriverWorld) -> None:
    await install(world.driver, tun_node())
    by_device, by_gateway = (
        Route(subnet(2), None, TUN),
        Route(subnet(2), IPv4Address("10.244.9.0"), TUN, onlink=True),
    )
    await done(world, *adding([by_gateway]))
    for desired, was in ((by_device, by_gateway), (by_gateway, by_device)):
        await done(world, Operation(Verb.CHANGE, desired, was=was))
        assert await observed(world) == tun_node() | KernelState.of([desired])
        assert len(world.routes(subnet(2))) == 1


@pytest.mark.parametrize("device", [DEVICE, "eth0"])
async def test_a_device_that_is_deleted_takes_everything_along(world: DriverWorld, device: str) -> None:
    """Its own tunnel, or the underlay, which takes the tunnel along."""
    await install(world.driver, node(1, peers=(2,)))
    world.delete_link(device)
    assert await observed(world) == KernelState.of([FORWARDING])


async def test_what_the_outside_deletes_or_replaces_is_seen_and_mended(world: DriverWorld) -> None:
    state = node(1, peers=(2, 3))
    await install(world.driver, state)
    for item in peer(2):
        world.delete(item)
    wrong = (
        dataclasses.replace(fdb_entry(3), destination=IPv4Address("10.99.0.8")),
        dataclasses.replace(neighbour(3), mac=mac(8)),
    )
    for entry in wrong:
        world.put(entry)
    assert await observed(world) == node(1) | KernelState.of([*wrong, route(3)])
    await done(
        world,
        *adding(peer(2)),
        *[Operation(Verb.CHANGE, state.by_key[entry.key], was=entry) for entry in wrong],
    )
    assert await observed(world) == state


async def test_a_change_from_outside_is_hinted_at(world: DriverWorld) -> None:
    """Also one of a link that routes of ours may go by: the kernel takes these away without a word."""
    await install(world.driver, node(1, peers=(2,)))
    await world.driver.observe(Scope(frozenset({"eth0"})))
    async with open_changes(world.driver) as hints:
        for entry in (neighbour(2), route(2), fdb_entry(2)):
            world.delete(entry)
            with trio.fail_after(10):
                await hints.wait()
        world.set_link("eth0", up=False)
        with trio.fail_after(10):
            await hints.wait()


async def test_a_hint_before_the_wait_is_not_lost_and_silence_is_silent(world: DriverWorld) -> None:
    await install(world.driver, node(1, peers=(2,)))
    async with open_changes(world.driver) as hints:
        with trio.move_on_after(0.1) as silence:
            await hints.wait()
        assert silence.cancelled_caught
        world.delete(neighbour(2))
        await trio.sleep(0.05)
        with trio.fail_after(10):
            await hints.wait()
