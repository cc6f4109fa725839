"""What a driver promises of a datapath and its entries: the one that runs loops, and the fake kernel's."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.driver import Driver, Operation, Scope, Verb
from overlayd.core.kernel.items import Item, KernelState, Link
from overlayd.testing.kernel import FakeKernel
from support.loops import open_fake_datapath
from support.overlay import TUN, adding, removing, subnet, tun
from support.worlds import LATENCIES

DATAPATH = Datapath(TUN, IPv4Address("10.99.0.1"), 8285, (subnet(1),))


def encap(number: int) -> Encap:
    return Encap(TUN, subnet(number), IPv4Address(f"10.99.0.{number}"), 8285)


@pytest.fixture(params=[*LATENCIES, "real"])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    if request.param in LATENCIES:
        kernel = FakeKernel(latency=LATENCIES[request.param])
        kernel.add_link(tun())
        yield kernel
        return
    async with open_fake_datapath() as (real, _):
        yield real


async def observed(driver: Driver) -> set[Item]:
    return {item for item in (await driver.observe(Scope())).items if not isinstance(item, Link)}


async def done(driver: Driver, *operations: Operation) -> None:
    assert await driver.apply(operations) == (None,) * len(operations)


async def test_nothing_runs_unasked(driver: Driver) -> None:
    assert await observed(driver) == set()


async def test_what_is_added_is_observed_just_so_and_can_be_added_again(driver: Driver) -> None:
    desired: list[Item] = [DATAPATH, encap(2), encap(3)]
    for _ in range(2):
        await done(driver, *adding(desired))
        assert await observed(driver) == set(desired)


async def test_entries_come_change_and_go(driver: Driver) -> None:
    await done(driver, *adding([DATAPATH, encap(2), encap(3)]))
    moved = dataclasses.replace(encap(2), destination=IPv4Address("10.99.0.9"))
    await done(driver, Operation(Verb.CHANGE, moved, was=encap(2)))
    assert await observed(driver) == {DATAPATH, moved, encap(3)}
    for _ in range(2):
        await done(driver, *removing([moved]))
        assert await observed(driver) == {DATAPATH, encap(3)}


@pytest.mark.parametrize(
    "change", [{"own": (subnet(4),)}, {"own": ()}, {"port": 9000}, {"local": IPv4Address("10.99.0.7")}]
)
async def test_the_datapath_changes_and_keeps_its_entries(driver: Driver, change: dict[str, Any]) -> None:
    await done(driver, *adding([DATAPATH, encap(2)]))
    changed = dataclasses.replace(DATAPATH, **change)
    await done(driver, Operation(Verb.CHANGE, changed, was=DATAPATH))
    assert await observed(driver) == {changed, encap(2)}


async def test_it_goes_with_its_entries_and_removing_again_succeeds(driver: Driver) -> None:
    await done(driver, *adding([DATAPATH, encap(2)]))
    for _ in range(2):
        await done(driver, *removing([DATAPATH]))
        assert await observed(driver) == set()
    await done(driver, *removing([encap(2)]))


async def test_an_entry_needs_a_datapath(driver: Driver) -> None:
    (refused,) = await driver.apply(adding([encap(2)]))
    assert refused is not None
    assert TUN in refused.reason
    assert await observed(driver) == set()


async def test_an_address_has_one_place(driver: Driver) -> None:
    await done(driver, *adding([DATAPATH, encap(2)]))
    within = dataclasses.replace(encap(2), prefix=IPv4Network("10.244.2.128/25"))
    [refused] = await driver.apply(adding([within]))
    assert refused is not None
    greedy = dataclasses.replace(DATAPATH, own=(IPv4Network("10.244.0.0/22"),))
    [too] = await driver.apply([Operation(Verb.CHANGE, greedy, was=DATAPATH)])
    assert too is not None
    assert "overlap" in refused.reason
    assert "overlap" in too.reason
    assert await observed(driver) == {DATAPATH, encap(2)}


async def test_a_state_is_reached_from_any_other(driver: Driver) -> None:
    await done(driver, *adding([DATAPATH, encap(2)]))
    other = dataclasses.replace(DATAPATH, own=(subnet(2),))
    await done(driver, *removing([encap(2)]))
    await done(driver, Operation(Verb.CHANGE, other, was=DATAPATH))
    await done(driver, *adding([encap(1)]))
    assert KernelState.of(await observed(driver)) == KernelState.of([other, encap(1)])
